"""Hostile bodies: valid framing, a size that is allowed, and the most work for whatever reads them.

Most are refused. Those of `ACCEPTED` become a call to the provider.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping

MIB = 2**20

Make = Callable[[], bytes]


def member(value: bytes) -> bytes:
    """A request with an unknown member, whose value it is, before the rest."""
    return b'{"a":' + value + b',"model":"m","messages":[{"role":"user","content":"x"}]}'


def text(content: bytes, rest: bytes = b',"n":[]}') -> bytes:
    """A request with a long text, which is refused for its last member."""
    return b'{"model":"m","messages":[{"role":"user","content":"' + content + b'"}]' + rest


def request(field: bytes, value: bytes) -> bytes:
    """A request with this field."""
    return b'{"model":"m","messages":[{"role":"user","content":"x"}],"%b":%b}' % (field, value)


def messages(value: bytes) -> bytes:
    """A request with this value of `messages`."""
    return b'{"model":"m","messages":' + value + b"}"


def repeated(item: bytes, count: int) -> bytes:
    """An array with the same item many times."""
    return b"[" + b",".join([item] * count) + b"]"


def numbered(item: bytes, count: int, around: bytes = b"{}") -> bytes:
    """An object or array of different items."""
    return around[:1] + b",".join(item % number for number in range(count)) + around[1:]


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 3_000)
DATA_URL = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,%b"}}'


def image(data: bytes) -> bytes:
    """A request with a picture of this base64."""
    return messages(b'[{"role":"user","content":[' + DATA_URL % data + b"]}]")


def call(arguments: bytes) -> bytes:
    """A tool call with these arguments, which are JSON in a string, or none."""
    written = json.dumps(arguments.decode()).encode()
    return (
        b'{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function",'
        b'"function":{"name":"f","arguments":' + written + b"}}]}"
    )


REFUSED: Mapping[str, Make] = {
    "comb of arrays": lambda: member(b"[" * 10 * MIB + b"]" * 10 * MIB),
    "comb of objects": lambda: member(b'{"a":' * 5 * MIB + b"1" + b"}" * 5 * MIB),
    "combs of the allowed depth": lambda: member(repeated(b"[" * 60 + b"]" * 60, 250_000)),
    "empty arrays": lambda: member(repeated(b"[]", 10 * MIB)),
    "empty objects": lambda: member(repeated(b"{}", 10 * MIB)),
    "empty texts": lambda: member(repeated(b'""', 10 * MIB)),
    "digits in an array": lambda: member(repeated(b"1", 15 * MIB)),
    "nulls": lambda: member(repeated(b"null", 6 * MIB)),
    "pairs of members": lambda: member(repeated(b'{"a":1,"b":2}', 2 * MIB)),
    "a comb without an end": lambda: b'{"a":' + b"[" * 30 * MIB,
    "separators in texts": lambda: text(b'\\",' * 10 * MIB),
    "colons in texts": lambda: text(b":" * 30 * MIB),
    "brackets in texts": lambda: text(b"[{" * 15 * MIB),
    "quotes": lambda: text(b'\\"' * 15 * MIB),
    "backslashes": lambda: text(b"\\\\" * 15 * MIB),
    "escaped letters": lambda: text(b"\\u0041" * 5 * MIB),
    "escaped nulls": lambda: text(b"\\u0000" * 5 * MIB),
    "escaped pairs of surrogates": lambda: text(b"\\ud83d\\ude00" * 2 * MIB),
    "lone surrogates": lambda: text(b"\\ud800" * 5 * MIB),
    "a lone surrogate at the end": lambda: text(b"x" * 30 * MIB + b"\\ud800"),
    "emoji": lambda: text("😀".encode() * 7 * MIB),
    "accents": lambda: text("é".encode() * 15 * MIB),
    "invalid UTF-8 at the end": lambda: text("é".encode() * 15 * MIB + b"\xff"),
    "digits": lambda: b'{"model":' + b"9" * 30 * MIB + b"}",
    "digits of a seed": lambda: request(b"seed", b"9" * 30 * MIB),
    "digits of a fraction": lambda: request(b"temperature", b"0." + b"3" * 30 * MIB),
    "digits of an exponent": lambda: request(b"top_p", b"1e" + b"9" * 30 * MIB),
    "long numbers": lambda: request(b"stop", repeated(b"1" * 3_000, 10_000)),
    "exponents": lambda: request(b"stop", repeated(b"1e308", 190_000)),
    "white space": lambda: b'{"model":' + b" " * 30 * MIB + b"1}",
    "lines": lambda: b'{"model":' + b"\r\n" * 15 * MIB + b"1}",
    "spaced digits": lambda: member(b"[" + b"1 , " * 7 * MIB + b"1]"),
    "keys": lambda: request(b"a", numbered(b'"%d":1', 190_000)),
    "long keys": lambda: text(b"x", b"," + numbered(b'"' + b"k" * MIB + b'%d":1', 28, b",}")),
    "escaped keys": lambda: request(b"n", numbered(b'"\\u0061%d":1', 99_000)),
    "a duplicate among keys": lambda: request(b"a", b'{"0":1,' + numbered(b'"%d":1', 98_000)[1:]),
    "duplicates in objects": lambda: request(b"a", repeated(b'{"a":1,"a":2}', 49_000)),
    "a duplicate with escapes": lambda: request(
        b"a", repeated(b'{"aaaaaaaa":1,"\\u0061aaaaaaa":2}', 49_000)
    ),
    "token biases": lambda: request(b"logit_bias", numbered(b'"%d":1', 99_000)),
    "long token biases": lambda: request(
        b"logit_bias", numbered(b'"' + b"1" * 15_000 + b'%04d":1', 2_000)
    ),
    "metadata": lambda: request(b"metadata", numbered(b'"%d":"x"', 99_000)),
    "stop sequences": lambda: request(b"stop", repeated(b'"x"', 190_000)),
    "tools": lambda: request(
        b"tools", repeated(b'{"type":"function","function":{"name":"f"}}', 33_000)
    ),
    "tools of other types": lambda: request(b"tools", repeated(b'{"type":"x","name":"y"}', 39_000)),
    "tools with unknown members": lambda: request(
        b"tools", repeated(b'{"type":"function","x":1,"function":{"name":"f","y":2}}', 9_900)
    ),
    "tool choices": lambda: request(
        b"tool_choice",
        b'{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":'
        + repeated(b'{"type":"function","function":{"name":"f"}}', 30_000)
        + b"}}",
    ),
    "empty messages": lambda: messages(repeated(b"{}", 190_000)),
    "messages": lambda: messages(repeated(b'{"role":"user","content":"x"}', 39_000)),
    "messages that are decoded": lambda: messages(
        repeated(b'{"role":"user","content":"x"}', 9_999)
    ),
    "messages with unknown members": lambda: messages(
        repeated(b'{"role":"user","content":"x","y":[]}', 9_900)
    ),
    "parts": lambda: messages(
        b'[{"role":"user","content":' + repeated(b'{"type":"text","text":"x"}', 39_000) + b"}]"
    ),
    "parts of messages": lambda: messages(
        repeated(
            b'{"role":"user","content":' + repeated(b'{"type":"text","text":"x"}', 2_000) + b"}", 19
        )
    ),
    "parts with unknown members": lambda: messages(
        repeated(
            b'{"role":"user","content":'
            + repeated(b'{"type":"text","text":"x","y":1}', 2_000)
            + b"}",
            14,
        )
    ),
    "parts of other types": lambda: messages(
        b'[{"role":"user","content":' + repeated(b'{"type":"y","z":{}}', 2_000) + b"}]"
    ),
    "tool calls": lambda: messages(
        b'[{"role":"assistant","tool_calls":'
        + repeated(b'{"id":"c","type":"function","function":{"name":"f"}}', 24_000)
        + b"}]"
    ),
    "marks of base64": lambda: text(b";base64," * 3 * MIB),
    "small pictures": lambda: messages(
        b'[{"role":"user","content":' + repeated(DATA_URL % b"AAAA", 2_000) + b"}]"
    ),
    "pictures": lambda: messages(
        b'[{"role":"user","content":' + repeated(DATA_URL % PNG, 1_000) + b"}]"
    ),
    "base64 without a picture": lambda: image(b"A" * 26 * MIB),
    "base64 with a fault at its end": lambda: image(PNG + b"A" * 26 * MIB + b"!"),
    "base64 in lines": lambda: image(b"\\n".join([PNG[:76]] * 300_000)),
    "base64 of URLs": lambda: image(PNG + b"-_" * 13 * MIB),
    "a long model": lambda: b'{"model":"' + b"m" * 30 * MIB + b'","messages":[]}',
    "a long role": lambda: messages(b'[{"role":"' + b"u" * 30 * MIB + b'","content":"x"}]'),
    "a long word": lambda: request(b"verbosity", b'"' + b"h" * 30 * MIB + b'"'),
    "a long user": lambda: request(b"user", b'"' + b"u" * 30 * MIB + b'"'),
    "an object in an array": lambda: b"[" * 20 * MIB,
}

HISTORY = b'[{"role":"user","content":"x"},%b,{"role":"tool","tool_call_id":"c","content":%b}]'

ACCEPTED: Mapping[str, Make] = {
    "words": lambda: text(b"word " * 6 * MIB, b"}"),
    "one letter": lambda: text(b"x" * 30 * MIB, b"}"),
    "spaces": lambda: text(b" " * 30 * MIB, b"}"),
    "Chinese": lambda: text("你好".encode() * 5 * MIB, b"}"),
    "escapes": lambda: text(b"\\u00e9" * 5 * MIB, b"}"),
    "control characters": lambda: text(b"\\u0001" * 5 * MIB, b"}"),
    "an unknown member": lambda: member(repeated(b"1", 199_000)),
    "unknown objects": lambda: member(repeated(b'{"a":{}}', 66_000)),
    "a large schema": lambda: request(
        b"response_format",
        b'{"type":"json_schema","json_schema":{"name":"s","schema":{"type":"object","properties":'
        + numbered(b'"p%d":{"type":"string"}', 60_000)
        + b"}}}",
    ),
    "tools with schemas": lambda: request(
        b"tools",
        numbered(
            b'{"type":"function","function":{"name":"f%d","parameters":{"type":"object","properties":'
            + numbered(b'"p%d":{"type":"string"}', 450)
            + b"}}}",
            128,
            b"[]",
        ),
    ),
    "2,000 messages": lambda: messages(repeated(b'{"role":"user","content":"x"}', 2_000)),
    "2,000 messages with unknown members": lambda: messages(
        repeated(b'{"role":"user","content":"x","y":1}', 2_000)
    ),
    "150 messages of 256 parts": lambda: messages(
        repeated(
            b'{"role":"user","content":' + repeated(b'{"type":"text","text":"x"}', 256) + b"}", 150
        )
    ),
    "parts with marks": lambda: messages(
        repeated(
            b'{"role":"user","content":'
            + repeated(b'{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}', 256)
            + b"}",
            90,
        )
    ),
    "arguments": lambda: messages(HISTORY % (call(b'{"a":"%b"}' % (b"x" * 28 * MIB)), b'"y"')),
    "arguments that are a comb": lambda: messages(
        HISTORY % (call(b'{"a":' + b"[" * 10 * MIB + b"]" * 10 * MIB + b"}"), b'"y"')
    ),
    "arguments of many values": lambda: messages(
        HISTORY % (call(b'{"a":' + repeated(b"[]", 10 * MIB) + b"}"), b'"y"')
    ),
    "arguments that are no JSON": lambda: messages(HISTORY % (call(b"[" * 28 * MIB), b'"y"')),
    "a tool's result": lambda: messages(HISTORY % (call(b"{}"), b'"' + b"[]," * 10 * MIB + b'"')),
    "thinking of an earlier answer": lambda: messages(
        b'[{"role":"assistant","reasoning_content":"' + b"t" * 30 * MIB + b'","content":"x"},'
        b'{"role":"user","content":"x"}]'
    ),
    "state of reasoning": lambda: messages(
        b'[{"role":"assistant","reasoning_state":"' + b"A" * 30 * MIB + b'","content":"x"},'
        b'{"role":"user","content":"x"}]'
    ),
    "details of reasoning": lambda: messages(
        b'[{"role":"assistant","reasoning_details":'
        + repeated(b'{"type":"reasoning.text","text":"x","format":"y"}', 28_000)
        + b',"content":"x"},{"role":"user","content":"x"}]'
    ),
    "sound": lambda: messages(
        b'[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"'
        + b"A" * 28 * MIB
        + b'","format":"wav"}}]}]'
    ),
    "a file": lambda: messages(
        b'[{"role":"user","content":[{"type":"file","file":{"filename":"a.txt","file_data":'
        b'"data:text/plain;base64,' + b"QUFB" * 7 * MIB + b'"}}]}]'
    ),
    "a picture of 19 MiB": lambda: image(PNG + b"A" * (19 * MIB // 3 * 4)),
}
