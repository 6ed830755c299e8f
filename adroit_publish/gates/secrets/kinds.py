"""Which texts are secrets: tokens by their form, and values by the name that they are assigned to.

The forms are those of the library detect-secrets, where it has them, and ours. A token is known by
its own form wherever it stands. A password is known by its name and by looking like one: letters
and digits in a mix that no word, path, placeholder or expression has.

Source: detect-secrets 1.5, ``detect_secrets.plugins``; RFC 7468 (textual encodings of keys); the
token formats that GitHub, GitLab, Slack, Databricks, AWS, Google and Azure publish.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

_PLUGINS = {
    "aws": ("AWSKeyDetector", "AWS access key"),
    "azure_storage_key": ("AzureStorageKeyDetector", "Azure storage key"),
    "discord": ("DiscordBotTokenDetector", "Discord token"),
    "github_token": ("GitHubTokenDetector", "GitHub token"),
    "gitlab_token": ("GitLabTokenDetector", "GitLab token"),
    "jwt": ("JwtTokenDetector", "JSON web token"),
    "openai": ("OpenAIDetector", "OpenAI key"),
    "pypi_token": ("PypiTokenDetector", "PyPI token"),
    "sendgrid": ("SendGridDetector", "SendGrid key"),
    "slack": ("SlackDetector", "Slack token"),
    "square_oauth": ("SquareOAuthDetector", "Square secret"),
    "telegram_token": ("TelegramBotTokenDetector", "Telegram token"),
}
"""Those plugins of detect-secrets whose forms are seldom anything else: module, class, kind."""

_TOKENS = (
    ("private key", r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr]){1,4}"
     r"(?:[A-Z][\w-]{1,20}: [^\n\\]{1,80}(?:\n|\\n|\r){1,4}){0,4}[A-Za-z0-9+/=]{24}"),
    ("private key", r"PuTTY-User-Key-File-\d: "),
    ("private key", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    ("Databricks token", r"dapi[0-9a-f]{32}\b"),
    ("Databricks token", r"dose[0-9a-f]{32}\b"),
    ("GitHub token", r"github_pat_\w{22,}"),
    ("Slack token", r"xox[abeposr]-[0-9A-Za-z-]{20,}"),
    ("Slack token", r"xapp-\d-[0-9A-Za-z-]{20,}"),
    ("Azure signature", r"[?&]sig=[A-Za-z0-9%+/]{40,}=*"),
    ("Azure key", r"SharedAccessKey=[A-Za-z0-9+/=]{40,}"),
    ("Google key", r"AIza[0-9A-Za-z_-]{35}(?![\w-])"),
    ("Google secret", r"GOCSPX-[\w-]{28}"),
    ("Google token", r"ya29\.[\w-]{60,}"),
    ("Hugging Face token", r"hf_[A-Za-z0-9]{34,}\b"),
    ("OpenAI key", r"sk-(?:proj|svcacct|admin)-[\w-]{20,}"),
    ("OpenAI key", r"sk-[A-Za-z0-9]{48}\b"),
    ("Anthropic key", r"sk-ant-[\w-]{20,}"),
    ("Twilio key", r"SK[0-9a-f]{32}\b"),
    ("Twilio key", r"AC[0-9a-f]{32}\b"),
    ("npm token", r"npm_[A-Za-z0-9]{36}\b"),
    ("Docker token", r"dckr_pat_[\w-]{20,}"),
    ("Docker login", r"\"auth\":\s*\"[A-Za-z0-9+/=]{16,}\""),
    ("Vault token", r"hv[sb]\.[\w-]{24,}"),
    ("Grafana token", r"glsa_\w{32,}"),
    ("Grafana token", r"glc_[A-Za-z0-9+/]{32,}"),
    ("DigitalOcean token", r"do[opr]_v1_[0-9a-f]{64}"),
    ("Shopify token", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("Stripe key", r"sk_live_[0-9A-Za-z]{24,}"),
    ("Stripe key", r"rk_live_[0-9A-Za-z]{24,}"),
    ("Square secret", r"sq0(?:atp|csp)-[\w-]{22,}"),
    ("Linear key", r"lin_api_\w{32,}"),
    ("Postman key", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    ("Terraform token", r"\.atlasv1\.[\w-]{60,}"),
    ("webhook", r"discord(?:app)?\.com/api/webhooks/\d{17,}/[\w-]{60,}"),
)  # fmt: skip
"""By their forms; each begins with letters, which a search is quick to find."""

_AWS_SECRET = re.compile(r"[\"']?\]?\s*[=:,]\s*[\"']?([A-Za-z0-9/+]{40,})=*(?![\w/+.(])")
_LOGIN = re.compile(r"[\"']?\s*[=:,]\s*[\"']?(?:bearer|basic|token)\s+([\w+/=.~-]{20,})", re.I)
_NETRC = re.compile(r"machine\s+\S+\s+login\s+\S+\s+(?:account\s+\S+\s+)?password\s+([^\s\"']{6,})")
_URL = re.compile(r"://[^\s:/?#@'\"]*:([^\s:/?#@'\"]{6,})@([\w.-]+)")

_NAMES = (
    *("password", "passwd", "passphrase", "pwd", "secret", "token", "credential"),
    *("apikey", "api_key", "api-key", "accesskey", "access_key", "access-key", "private_key"),
    *("auth_key", "account_key", "encryption_key", "signing_key"),
)
_ANNOTATED = r"[\"']?\]?(?::[ \t]*\w+)?[ \t]*"
_QUOTED = re.compile(
    r"[\w-]{0,16}" + _ANNOTATED + r"(?::=|=>|=|:|,)[ \t]*[bru]?([\"'`])([^\"'`\s]{8,200})\1"
)
_BARE = re.compile(r"[\w-]{0,16}[ \t]*[:=][ \t]*()([^\s\"'`]{8,200})[ \t\r]*(?:\n|\Z)")
_NAME = re.compile(r"[\w.-]{0,40}\Z")
_NOT_THE_VALUE = re.compile(
    r"(name|id|ids|url|uri|path|file|files|env|var|arn|type|field|header|format|prefix|suffix|"
    r"regex|pattern|length|ttl|expiry|hash|digest|ref|version|page_?token|next_?token|requests|refs)$|tokeniz|secretsmanager"
)
_PASSWORD = re.compile(r"passw|passphrase|pwd")
_PLACEHOLDER = re.compile(
    r"(?i)example|change.?me|your|x{4,}|\*{3,}|dummy|placeholder|redacted|insert|replace|todo|"
    r"password|passwd|^secret|sample|default|fake|mock|unused|foo|bar\b|^test|none|null|undefined"
)
_EXPRESSION = re.compile(r"^[${<%@&/.#]|[(){}<>|\[\]]|\$\{|%\(|%s|://|\\[dws]|^arn:|\.\.\.|^--")
_PREFIX = re.compile(r"^(?:[A-Za-z]{1,8}\d{0,2}[_.-]){1,3}")
_WORD = re.compile(r"(?=.*[aeiouyAEIOUY])(?:[a-z]{4,}|[A-Z][a-z]{3,}|[A-Z]{4,})", re.ASCII)
_IN_CODE = re.compile(r".*\.(py|pyi|js|ts|tsx|go|java|rs|rb|scala|c|cc|cpp|h|hpp|pyx)", re.S)

Hit = tuple[int, str]
"""Where in a text a secret begins, and its kind."""


def secrets_in(text: str, path: str) -> Iterator[Hit]:
    """Yields every secret of a text, whose bytes were read as Latin-1; some as several kinds."""
    text = text.replace('\\"', '"')  # a notebook's or JSON's string within a string
    lower = text.encode("latin-1").lower().decode("latin-1")
    yield from tokens_in(text)
    for match in _NETRC.finditer(text):
        if not _is_placeholder(match[1]):
            yield match.start(1), "netrc password"
    for match in _URL.finditer(text):
        if _is_url_password(match[1], match[2]):
            yield match.start(1), "password in a URL"
    for pattern in (_QUOTED,) if _IN_CODE.fullmatch(path) else (_QUOTED, _BARE):
        for name, value in _assigned(_NAMES, pattern, text, lower):
            if _is_secret_value(name, value[2]):
                yield value.start(2), f"value of {name}"


def tokens_in(text: str) -> Iterator[Hit]:
    """Yields what is a secret by its own form, in bytes of any kind that were read as Latin-1."""
    for kind, form in _TOKENS:
        for match in re.finditer(form, text):
            before = text[max(0, match.start() - 1) : match.start()]
            if not ((before.isalnum() and form[0].isalnum()) or _is_made_up(match[0])):
                yield match.start(), kind
    for kind, pattern, is_valid in _plugins():
        for match in pattern.finditer(text):
            if is_valid(match[0]) and not _is_made_up(match[0]):
                yield match.start(), kind
    lower = text.encode("latin-1").lower().decode("latin-1")
    named = (
        ("AWS secret key", ("secret_access_key", "secretaccesskey"), _AWS_SECRET),
        ("AWS session token", ("session_token", "sessiontoken"), _AWS_SECRET),
        ("authorization", ("authorization",), _LOGIN),
    )
    for kind, names, pattern in named:
        for _, match in _assigned(names, pattern, text, lower):
            if re.search(r"\d", match[1]) and not _is_made_up(match[1]):
                yield match.start(1), kind


def _assigned(
    names: Iterable[str], pattern: re.Pattern[str], text: str, lower: str
) -> Iterator[tuple[str, re.Match[str]]]:
    """Yields the whole lower-case name that each of ``names`` is the end of, and what follows."""
    for name in names:
        for hit in re.finditer(re.escape(name), lower):
            if match := pattern.match(text, hit.end()):
                start = hit.start()
                before = _NAME.search(lower, max(0, start - 40), start)
                rest = re.match(r"[\w-]*", lower[hit.end() : hit.end() + 16])
                yield f"{before and before[0]}{name}{rest and rest[0]}", match


@lru_cache(maxsize=1)
def _plugins() -> tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...]:
    """Returns the forms of detect-secrets: kind, pattern, and what a match has to be as well."""
    from importlib import import_module

    forms = []
    for module, (name, kind) in _PLUGINS.items():
        plugin: Any = getattr(import_module(f"detect_secrets.plugins.{module}"), name)
        is_valid = getattr(plugin, "is_formally_valid", bool)
        forms += [(kind, pattern, is_valid) for pattern in plugin.denylist]
    return tuple(forms)


def _is_made_up(token: str) -> bool:
    """Whether a token of the right form was written by hand, to show the form."""
    own = _PREFIX.sub("", token)
    drawn = own if len(own) >= 8 else token
    return bool(re.search(r"EXAMPLE|(?i:x{6})|(.)\1{7}", token)) or len(set(drawn)) < 4


def _is_url_password(password: str, host: str) -> bool:
    mixed = re.search(r"\d|[A-Z]|[^\w]", password) and re.search(r"[A-Za-z]", password)
    here = re.search(r"(^|\.)(localhost|example(\.\w+)?|127\.0\.0\.1|host|hostname)$", host)
    return bool(mixed) and not here and not _is_placeholder(password)


def _is_secret_value(name: str, value: str) -> bool:
    if _NOT_THE_VALUE.search(name) or _is_placeholder(value):
        return False
    classes = (r"[a-z]", r"[A-Z]", r"\d", r"[^\w]")
    mixed = sum(bool(re.search(each, value)) for each in classes)
    parts = re.split(r"[-_./:,]|(?<=[a-z])(?=[A-Z])", value)
    words = sum(len(part) for part in parts if _WORD.fullmatch(part)) >= len(value) / 2
    if _PASSWORD.search(name):
        return mixed >= 3 and not words
    has_both = re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
    return len(value) >= 16 and bool(has_both) and not words and _entropy_bits(value) >= 3.2


def _is_placeholder(value: str) -> bool:
    return bool(_PLACEHOLDER.search(value) or _EXPRESSION.search(value)) or _is_made_up(value)


def _entropy_bits(value: str) -> float:
    """Returns Shannon's entropy of a text's characters, in bits each."""
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
