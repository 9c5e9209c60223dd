"""Phrases of providers for a conversation that is longer than the model's context."""

from __future__ import annotations

from collections.abc import Sequence

GAP = r"[^.;:\n]{0,80}?"  # A few words of the same sentence.

_CONTEXT_SIZE = r"context (?:length|limit|size|window)"
_PROMPT_TOKENS = r"(?:(?:input|prompt) tokens?(?! per\b)|tokens in (?:the )?(?:input|prompt))"
_OTHER_TOKENS = (
    *("budget", "completion", "generated", "max", "maximum"),
    *("new", "output", "reasoning", "thinking"),
)
_PROMPT_COUNT = "".join(f"(?<!{word} )" for word in _OTHER_TOKENS) + r"\btokens?"
_ANY_PROMPT = r"(?:conversation|input|messages|prompt|request)\b"
_TOKENS = r"(?:input |prompt )?tokens"
_PROMPT = r"(?:conversation|input|messages?|prompt|query|question)"
_EXCEEDS = r"\bexceed(?:s|ed)?\b"
_TEXT = (
    "(?:(?!图|音|视频|文件|参数|缓存)[^。\\n]){0,20}?"  # A few characters about a text, in Chinese.
)
_OVER = "(?:超过|超出|大于)"

OVERFLOWS: Sequence[str] = (
    r"max(?:imum)? context|(?:maximum|max) (?:prompt|model) length|max_(?:model_len|seq_len)",
    r"exceed(?:s|ed)?(?: the| this| your| available| maximum| model(?:'s)?)* " + _CONTEXT_SIZE,
    _CONTEXT_SIZE + GAP + r"\b(?:exceeds|exceeded)",
    r"(?:configured|reached|exceeds) context (?:size|length)|context length (?:is|of) only",
    r"(?:larger|longer|greater) than the (?:maximum |model.?s )?context|context the overflows",
    r"(?:context|prompt)_?(?:length|window)_?exceeded|n_keep[^.;\n]{0,20}>= n_ctx",
    _CONTEXT_SIZE + r"(?: is)? (?:full|reached)|exceed(?:s|ed)? (?:the )?model(?:'s)? context",
    _PROMPT + r"(?: text| tokens?)?(?: \([\d,]+ tokens\))?(?: is| are)? too long",
    r"(?:input|prompt) is longer than the max|prompt exceeds? (?:the )?max(?:imum)? length",
    r"(?:input|prompt) length" + GAP + _EXCEEDS + r"|inputs?`? must have less than",
    r"max(?:imum)? length of (?:the )?current question|max(?:imum)? sequence length",
    r"input request: expected maxLength: \d+, actual|range of input length should be",
    _PROMPT_TOKENS + r"(?: count)?\b" + GAP + _EXCEEDS,
    rf"{_PROMPT_COUNT}{GAP}{_EXCEEDS}{GAP}\b(?:context|max(?:imum)?|model)\b(?!(?:'s)? vocab)",
    rf"{_ANY_PROMPT}{GAP}{_EXCEEDS} (?:the )?(?:model's )?max(?:imum)? (?:number of )?{_TOKENS}",
    r"token count (?:is|of) [\d,]+ but (?:the )?model only supports",
    r"exceed(?:s|ed)? (?:the )?(?:model|input|prompt|context)(?:'s)? (?:max )?token limit",
    r"token limit exceeded for this model|exceed(?:s|ed)? max message tokens",
    r"inputs?`? tokens \+ `?max_new_tokens`? must be",
    r"too many tokens in (?:the )?(?:prompt|request|input)|too many (?:input|prompt) tokens",
    r"(?:request|prompt|input) (?:has|contains) too many tokens|too many tokens: ",
    r"too large for [\w.:/-]{1,80} model\. max size: \d+ tokens",
    r"reduce the length of (?:the|your) (?:messages|prompt|input|conversation)",
    r"(?:prompt|上下文|输入|提示词|对话|消息)(?:内容|文本)?(?:总?长度)?\s*(?:超长|过长|太长)",
    f"上下文{_TEXT}{_OVER}|{_OVER}{_TEXT}上下文",
    f"(?:prompt|输入|消息|对话){_TEXT}{_OVER}{_TEXT}(?:最大长度|长度限制|模型)",
    f"(?<!_)tokens?{_TEXT}{_OVER}{_TEXT}模型|(?<!_)tokens?(?:数量?|总数|长度)?{_OVER}了?(?:上限|最大)",
)
"""Patterns of these phrases, in lower or upper case."""

RATES = (
    r"per[ -](?:minute|hour|day|month)|rate[ _-]?limit|\bquota|throttl|\bTP[MD]\b|please wait|"
    r"\b(?:monthly|daily|billing)\b|速率|频率|并发|限流|每分钟|每日|每天|余额|限额"
)
"""Pattern of words about limits of rates and spending, which count tokens, too."""
