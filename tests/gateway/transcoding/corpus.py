"""Requests for the sample service, which both edges get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple


class Case(NamedTuple):
    """One request."""

    verb: str
    target: str
    """Path and query, encoded."""
    body: str = ""

    @property
    def name(self) -> str:
        """The request in one line."""
        return " ".join(filter(None, self))


INTEGERS = (
    "0",
    "1",
    "-1",
    "2147483647",
    "2147483648",
    "-2147483649",
    "1.0",
    "1e3",
    "x",
    "",
    "%201",
)
BIG = ("9223372036854775807", "9223372036854775808", "-9223372036854775809")
HUGE = ("18446744073709551615", "18446744073709551616")
FLOATS = (
    "0.5",
    "-1e-3",
    "1e40",
    "1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    "inf",
    "0x10",
    ".5",
    "1.",
)

TEXTS: Mapping[str, Sequence[str]] = {
    "int32_value": INTEGERS,
    "int64_value": INTEGERS + BIG,
    "uint32_value": (*INTEGERS, "4294967295", "4294967296"),
    "uint64_value": INTEGERS + BIG + HUGE,
    "float_value": INTEGERS + FLOATS,
    "double_value": INTEGERS + FLOATS,
    "bool_value": ("true", "false", "True", "1", "0", "t", "yes", ""),
    "bytes_value": ("YWI%3D", "YWI=", "YWI", "-_8=", "-_8", "%2B/8=", "%2B%2F8", "a", "a*b=", ""),
    "kind": ("KIND_ROUND", "kind_round", "1", "2", "7", "-1", "KIND_STRANGE", "1.0", ""),
    "tags": ("a", "a,b", "", "%C3%A9", "a+b", "a%2Bb", "a%20b", "a%26b"),
    "numbers": ("1", "1,2", "x"),
    "kinds": ("KIND_SQUARE", "2", "9"),
    "inner.name": ("a", ""),
    "inner.count": ("3", "x"),
    "inner.inner.inner.tags": ("a",),
    "inner": ("a", "", "{}"),
    "inners": ("a", "{}"),
    "inners.name": ("a",),
    "labels": ("a",),
    "labels.key": ("a",),
    "int64_wrapper": ("5", "x", "9223372036854775807"),
    "string_wrapper": ("a", ""),
    "bytes_wrapper": ("YWI=", "*"),
    "bool_wrapper": ("true", "x"),
    "time": (
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.123456789Z",
        "2026-01-02T03:04:05%2B01:00",
        "2026-01-02",
        "x",
        "0000-01-01T00:00:00Z",
        "1600000000",
    ),
    "duration": ("1s", "1.5s", "-1.000000001s", "1", "1m", "x", "400000000000s"),
    "mask": ("name", "name,inner.count", "int32Value", "int32_value", "", "innerName,x.y"),
    "nickname": ("a", ""),
    "left": ("a", ""),
    "right": ("0", "1"),
    "int32Value": ("4",),
    "inner.inner.kind": ("KIND_ROUND",),
    "unknown": ("a",),
    "name.x": ("a",),
    "inner.unknown": ("a",),
    "name": ("again",),
    "": ("a",),
}

QUERIES = (
    "",
    "?",
    "?&",
    "?tags=a&tags=b",
    "?tags=a&&tags=b",
    "?numbers=1&numbers=2&numbers=-3",
    "?kinds=KIND_ROUND&kinds=2",
    "?int32_value=1&int32_value=2",
    "?int32_value=1&int32Value=2",
    "?left=a&right=1",
    "?right=1&left=a",
    "?inner.name=a&inner.count=1&inner.inner.name=b",
    "?inner.tags=a&inner.tags=b",
    "?inner%2Ename=a",
    "?t%61gs=a",
    "?tags",
    "?tags=a=b",
    "?tags=%zz",
    "?tags=%",
    "?tags=%FF",
    "?tags=a;tags=b",
    "?parent=p&parent=q",
)

PATHS = (
    "/v1/shelves/a/things/b",
    "/v1/shelves/a/things/b/",
    "/v1/shelves/a/things",
    "/v1/shelves//things/b",
    "/v1//shelves/a/things/b",
    "/v1/shelves/a%2Fb/things/c%2fd",
    "/v1/shelves/a%20b/things/c+d",
    "/v1/shelves/%C3%A9/things/%E2%82%AC",
    "/v1/shelves/%FF/things/b",
    "/v1/shelves/a%zz/things/b",
    "/v1/shelves/a:b/things/c",
    "/v1/shelves/a/things/b:c",
    "/v1/shelves/a/things/b:undo",
    "/v1/shelves/a/things/b:describe",
    "/v1/%73helves/a/things/b",
    "/v1/Shelves/a/things/b",
    "/v1/shelves/a/things/..",
    "/v1/shelves/a/things/b%3Fc%23d",
    "/v1/shelves/a/things/%25",
    "/v1/shelves/a/things/%2525",
    "/v1/things/b",
    "/v1/things/b%2Fc",
    "/v1/things/b/c",
    "/v1/things/",
    "/v1/things",
    "/v1/things/special",
    "/v1/things/speci%61l",
    "/v2/a/1/KIND_ROUND",
    "/v2/a/1/2",
    "/v2/a/x/KIND_ROUND",
    "/v2/a/1/KIND_STRANGE",
    "/v2/a%2Fb/-7/KIND_SQUARE",
    "/v3/true/YWI=/2026-01-02T03:04:05Z/7",
    "/v3/true/YWI%3D/2026-01-02T03%3A04%3A05Z/7",
    "/v3/yes/YWI=/2026-01-02T03:04:05Z/7",
    "/v1/files",
    "/v1/files/",
    "/v1/files/a",
    "/v1/files/a/",
    "/v1/files/a/b",
    "/v1/files/a%2Fb",
    "/v1/files/a//b",
    "/v1/files/a%20b+c",
    "/v1/files/a:describe",
    "/v1/files/a:describe/b",
    "/v1/files/a:other",
    "/v1/files/a:b:describe",
    "/v1/files:describe",
    "/v1/files/:describe",
    "/v1/files/a%3Adescribe",
    "/v1/watch/a",
    "/v1/watch/a?int32_value=3",
    "/v1/nothing",
    "/",
)

BODIES = (
    "",
    "{}",
    "null",
    "[]",
    '"a"',
    "1",
    "{",
    '{"name":"a"}',
    '{"name":"a","count":1,"tags":["x"],"inner":{"name":"deep"}}',
    '{"count":"5"}',
    '{"count":1.0}',
    '{"count":1.5}',
    '{"count":1e2}',
    '{"count":"x"}',
    '{"count":2147483648}',
    '{"name":1}',
    '{"name":null}',
    '{"tags":"a"}',
    '{"tags":null}',
    '{"tags":[null]}',
    '{"kind":"KIND_ROUND"}',
    '{"kind":2}',
    '{"kind":9}',
    '{"kind":"KIND_STRANGE"}',
    '{"stranger":1}',
    '{"name":"a","name":"b"}',
    '{"name":"\\u00e9\\ud83d\\ude00"}',
    '{"name":"\\ud83d"}',
    '{"name":"a"} x',
    " \n{} ",
    '{"name":NaN}',
    "{'name':'a'}",
    '{"name":"a",}',
)

WHOLE_BODIES = (
    '{"parent":"p","int64_value":"9223372036854775807","int64Value":"1"}',
    '{"int64Value":"9223372036854775807","bytesValue":"-_8","doubleValue":"NaN"}',
    '{"float_value":1e40}',
    '{"inner":{"write1h":"5","write_1h":"5"}}',
    '{"double_value":1.7976931348623157e308}',
    '{"time":"2026-01-02T03:04:05.5Z","duration":"1.5s","mask":"name,innerName"}',
    '{"int64_wrapper":"5","string_wrapper":"","bool_wrapper":false,"bytes_wrapper":"YWI="}',
    '{"int64_wrapper":null}',
    '{"labels":{"a":"b","c":""}}',
    '{"labels":{"a":1}}',
    '{"inners":[{"name":"a"},{}]}',
    '{"kinds":["KIND_ROUND",2]}',
    '{"left":"a"}',
    '{"left":"a","right":1}',
    '{"nickname":""}',
    '{"inner":{"name":"body","count":3}}',
    '{"name":"body"}',
    '{"bool_value":"true"}',
    '{"bool_value":1}',
    '{"uint32_value":-1}',
    '{"int32_value":"2147483647"}',
    '{"bytes_value":"*"}',
)


def _bodies(values_by_field: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    return tuple(
        f'{{"{field}":{value}}}' for field, values in values_by_field.items() for value in values
    )


LAX_BODIES = _bodies(
    {
        "int32_value": ('"+1"', '"01"'),
        "double_value": ('"+1"', '"1."', '".5"', '"01"', '"0x1p3"'),
        "bool_value": ('"false"',),
        "kind": ('"1"', '"+1"'),
        "duration": ('" 60s"', '"+60s"', '"1.s"', "{}"),
        "time": ('"2026-1-02T03:04:05Z"', '"2026-01-02T3:4:5Z"'),
        "mask": ('"inner_name"', '"a,,b"', '" a"', '"a, b"'),
        "bool_wrapper": ('"true"',),
        "int64_wrapper": ('"+1"', "{}", '{"value":1}'),
        "labels": ('{"a":null}',),
        "by_number": ('{"1":"a","+1":"b"}', '{"1":"a","01":"b"}', '{"0":"a","-0":"b"}'),
        "by_truth": ('{"True":"a"}', '{"1":"a"}'),
        "numbers": ("[1,null]", "[[1]]"),
    }
)
"""Values that are not in the specification of proto JSON, and that Envoy takes."""

REFUSED_BODIES = _bodies(
    {
        "int32_value": ('" 1"', '"1 "', '"1_0"', '"0x1"', '""', "true", "1.5", '"1.5"', '"1."',
                        '"\u0663"', "{}", "[]", "-2147483649", "1e10"),
        "uint32_value": ("-1", "4294967296"),
        "int64_value": ('"9223372036854775808"', '"1e19"'),
        "double_value": ('" 1"', '"1_0"', '"inf"', '"nan"', '"infinity"', '"1e400"', "true", '""',
                         "1e400", "[]"),
        "float_value": ("1e39", '"1e39"', "true"),
        "bool_value": ("0", "1", "[]"),
        "kind": ("true", '"KIND_STRANGE"', "2147483648", "1.5", "{}"),
        "duration": ('"60s "', '"6_0s"', '"60"', '".5s"', '"1e1s"', '"60S"', "60",
                     '"315576000001s"'),
        "time": ('"2026-01-02t03:04:05z"', '"2026-01-02 03:04:05Z"', '"2026-01-02T03:04:05"',
                 '"2026-01-02T03:04:05.1_2Z"', '"2026-01-02T03:04:05+1:0"',
                 '"2026-02-30T00:00:00Z"',
                 '"2026-01-02T03:04:05+25:00"', "0"),
        "mask": ('["a"]', "1"),
        "name": ("true", "1", "[]", "{}"),
        "bool_wrapper": ("1",),
        "string_wrapper": ("1",),
        "int64_wrapper": ("true",),
        "labels": ('{"a":1}', '"a"', "[]"),
        "by_number": ('{"1":"a","1.0":"b"}', '{" 1":"a"}', '{"x":"a"}', '{"":"a"}'),
        "numbers": ('{"0":1}', '[1,"x"]'),
    }
)  # fmt: skip
"""Values that are not in the specification, and that Envoy refuses, too."""

UNUSUAL_BODIES = _bodies(
    {
        "int32_value": ("1.0", "1e2", '"-0"', "null"),
        "int64_value": ("1e15", "-9223372036854775808"),
        "double_value": ('"-Infinity"', '"1.5"', '"1e-5"', "-0.0"),
        "bool_value": ("false",),
        "kind": ("1", "-1", "1.0"),
        "duration": ('"-1.5s"', '"0.000000001s"'),
        "time": ('"2026-01-02T03:04:05+01:00"', '"2026-01-02T03:04:05.123456789Z"'),
        "mask": ('""', '"a.b"', '"write1h"'),
        "string_wrapper": ('"a"',),
        "by_number": ('{"1":"a","2":"b"}', '{"-1":"a"}'),
        "by_truth": ('{"true":"a","false":"b"}',),
        "numbers": ('[1,"2"]',),
        "values": ('[1,"2",[],{"a":true}]',),
    }
)
"""Values that both accept."""

QUOTED_BODIES = _bodies({"int32_value": ('"1.0"', '"1e2"')})
"""Values that only Envoy refuses."""

CODES = (
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


def corpus() -> Iterator[Case]:
    """Yield all requests."""
    for field, texts in TEXTS.items():
        yield from (Case("GET", f"/v1/things/b?{field}={text}") for text in texts)
    yield from (Case("GET", f"/v1/things/b{query}") for query in QUERIES)
    yield from (Case("GET", path) for path in PATHS)
    yield from (Case("POST", "/v1/shelves/a/things", body) for body in BODIES)
    yield from (Case("PATCH", "/v1/shelves/a", body) for body in BODIES + WHOLE_BODIES)
    yield from (Case("POST", "/v1/shelves/a:undo", body) for body in WHOLE_BODIES)
    for bodies in (LAX_BODIES, REFUSED_BODIES, UNUSUAL_BODIES, QUOTED_BODIES):
        yield from (Case("POST", "/v1/shelves/a:undo", body) for body in bodies)
    for body in ('["a","b"]', "[]", "null", '"a"', "{}", "", '["a",1]'):
        yield Case("PUT", "/v1/tags/b", body)
    # No bare numbers: Envoy waits for more digits, until its route times out.
    for body in ('"5"', "null", '"x"', "{}", "", "[1]"):
        yield Case("PUT", "/v1/counts/b", body)
    yield Case("PUT", "/v1/tags/b?tags=c", "[]")
    yield Case("PUT", "/v1/tags/b?int32_value=4&inner.count=5", '["a"]')
    yield Case("POST", "/v1/shelves/a/things?inner.count=5", '{"name":"a"}')
    yield Case("POST", "/v1/shelves/a/things?int32_value=5", '{"name":"a"}')
    yield Case("PATCH", "/v1/shelves/a?int32_value=5", '{"name":"a"}')
    yield Case("GET", "/v1/things/b?int32_value=5", '{"name":"body"}')
    yield Case("DELETE", "/v1/things/b?inner.count=5")
    yield Case("DELETE", "/v1/things/b")
    for verb in ("POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "PURGE"):
        yield Case(verb, "/v1/shelves/a/things/b")
    yield from (Case("GET", f"/v1/fail/{code}") for code in CODES)
    yield from (Case("GET", f"/v1/watch/a?left={code}") for code in CODES)
