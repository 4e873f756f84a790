"""Forms that secrets are written in: keys of known services, webhooks, logins, headers; and the encodings of one value.

No scanner's list could be taken as it is. detect-secrets (1.5.0, of May 2024) knows neither ``github_pat_``, ``AIza``, ``hf_`` nor
today's ``sk-``, and takes addresses of machines for secrets; gitleaks (8.30.1) is a Go program whose rules ask for exact lengths,
which services change. Prefixes are theirs; what follows one is as long as no name is.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

HIDDEN = "***"
LONG = 10  # characters without a space that an encoded secret, a key or a webhook has at least
WORD = r"[A-Za-z0-9_-]"
# What is at the start of a key, and what follows. No key begins inside a word.
KEYS = {
    "hf_": "[A-Za-z0-9]{30,}",
    "api_org_": "[A-Za-z0-9]{30,}",  # Hugging Face
    "pnu_": "[A-Za-z0-9]{30,}",
    "pnb_": "[A-Za-z0-9]{30,}",  # Prefect Cloud
    **dict.fromkeys(("AKIA", "ASIA", "ABIA", "ACCA"), "[A-Z0-9]{16}(?![A-Za-z0-9])"),  # AWS
    # OpenAI, Anthropic, OpenRouter and many alike. Words with dashes, as names have them, are none of it.
    **{f"sk-{kind}-": rf"{WORD}{{20,}}" for kind in ("proj", "svcacct", "admin", "ant", "or-v1")},
    "sk-": rf"(?:[a-z0-9]+-){{0,3}}(?:[A-Za-z0-9]{{24,}}|(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{{16,}}){WORD}*",
    **{f"gh{kind}_": "[A-Za-z0-9]{20,}" for kind in "pousr"},
    "github_pat_": r"\w{20,}",
    **{
        f"gl{kind}-": rf"{WORD}{{20,}}(?:\.\w+)*"
        for kind in ("pat", "ptt", "dt", "rt", "cbt", "oas", "soat", "ft", "imt", "agent", "ffct")
    },
    **{f"xox{kind}-": "[A-Za-z0-9-]{10,}" for kind in "abeoprs"},
    "xoxe.xox": r"[bp]-[A-Za-z0-9-]{10,}",
    "xapp-": r"\d-[A-Za-z0-9-]{10,}",
    "AIza": rf"{WORD}{{30,}}",
    "ya29.": rf"{WORD}{{20,}}",
    "GOCSPX-": rf"{WORD}{{20,}}",
    **{f"{kind}_{where}_": "[A-Za-z0-9]{10,}" for kind in ("sk", "rk") for where in ("live", "test", "prod")},  # Stripe
    "whsec_": "[A-Za-z0-9+/=]{20,}",
    "npm_": "[A-Za-z0-9]{30,}",
    "pypi-AgE": rf"{WORD}{{50,}}",
    "SG.": rf"{WORD}{{16,}}\.{WORD}{{16,}}",
    **{f"hv{kind}.": rf"{WORD}{{20,}}" for kind in "bsr"},  # Vault
    **{f"do{kind}_v1_": "[a-f0-9]{40,}" for kind in "opr"},
    "dapi": "[a-f0-9]{32}",  # Databricks
    "dckr_pat_": rf"{WORD}{{20,}}",
    "nvapi-": rf"{WORD}{{20,}}",
    "gsk_": "[A-Za-z0-9]{30,}",  # Groq
    "r8_": "[A-Za-z0-9]{30,}",  # Replicate
    "pplx-": "[A-Za-z0-9]{30,}",
    "xai-": "[A-Za-z0-9]{30,}",
    "tgp_v1_": rf"{WORD}{{30,}}",
    "wandb_v1_": rf"{WORD}{{30,}}",
    "lin_api_": "[A-Za-z0-9]{30,}",
    "glsa_": r"\w{30,}",
    "ATATT3": r"[\w=-]{30,}",
    "shpat_": "[a-fA-F0-9]{30,}",
    "eyJ": rf"(?<![_-]eyJ){WORD}{{10,}}\.eyJ{WORD}{{10,}}\.{WORD}*",  # a JSON web token
}
WEBHOOKS = (
    r"hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/",
    r"discord(?:app)?\.com/api/(?:v\d+/)?webhooks/",
    r"webhook\.office(?:365)?\.com/webhook",
    r"outlook\.office(?:365)?\.com/webhook/",
    r"logic\.azure\.com(?::\d+)?/workflows/",
    r"api\.powerplatform\.com(?::\d+)?/(?:powerautomate/)?[\w/]*workflows/",
    r"chat\.googleapis\.com/v1/spaces/",
)
LOGIN = re.compile(r"(?:(?<=://)|(?<=:\\/\\/))[^\s/@:'\"\\]*:[^\s/'\"<>\\]*(?=@)")
# A user alone is a token where the web is asked; elsewhere (abfs://container@account) it is a name.
BARE_LOGIN = re.compile(
    "|".join(
        rf"(?<={scheme}:{slashes})[^\s/@:'\"?#<>\\]+(?=@)"
        for scheme in ("http", "https", "ws", "wss", "redis", "rediss")
        for slashes in ("//", r"\\/\\/")
    )
)

# Whose values have a password in them, and where.
PASSWORDS = (
    (re.compile(""), re.compile(r"://[^\s/@:]*:([^\s/]{10,})@")),
    (re.compile("STR", re.I), re.compile(r"(?i)(?:password|pwd|key|signature)=([^;\s&]{10,})")),
    (re.compile("AUTH_STRING", re.I), re.compile(r"^[^\s/:]+:(.{10,})")),
)


@dataclass(frozen=True)
class Form:
    """A form of secret, ``what`` in words. ``pattern`` finds it where one of ``marks`` is in the text, or in its `long_words`."""

    what: str
    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    shown: str | Callable[[re.Match[str]], str] = HIDDEN
    in_a_word: bool = False

    def hide(self, text: str, words: str) -> str:
        """Return ``text``, whose `long_words` are ``words``, with stars for the secret."""
        searched = words if self.in_a_word else text
        return self.pattern.sub(self.shown, text) if any(mark in searched for mark in self.marks) else text


def _hide_basic(found: re.Match[str]) -> str:
    """Hide a user and password in base64; what decodes to neither is a word."""
    try:
        login = base64.b64decode(found[2] + "=" * (-len(found[2]) % 4)).decode("ascii")
    except ValueError:
        return found[0]
    return f"{found[1]}{HIDDEN}" if ":" in login and login.isprintable() else found[0]


FORMS = (
    Form(
        "a private key",
        ("-----BEGIN",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
            re.S,
        ),
    ),
    Form(
        "a key",
        tuple(KEYS),
        re.compile("(?<![A-Za-z0-9])(?:" + "|".join(f"{re.escape(start)}{rest}" for start, rest in KEYS.items()) + ")"),
        in_a_word=True,
    ),
    Form("a user and a password", ("@",), LOGIN),
    Form("a login", ("@",), BARE_LOGIN),
    Form(
        "a webhook's address",
        ("hook", "/workflows/", "chat.googleapis.com"),
        re.compile(rf"((?:{'|'.join(WEBHOOKS)}))[^\s'\"<>\\]+", re.I),
        rf"\1{HIDDEN}",
        in_a_word=True,
    ),
    Form(
        "a key",  # of AWS and Azure, which look like any base64
        ("ecret", "ECRET", "Key="),
        re.compile(
            r"((?i:aws_?)?(?i:secret_?(?:access_?)?key)[\"'\\]*\s*[:=]\s*[\"'\\]*|(?:Account|SharedAccess)Key=)"
            r"[A-Za-z0-9/+]{40,}={0,2}(?![A-Za-z0-9/+=])"
        ),
        rf"\1{HIDDEN}",
    ),
    Form(
        "a login",
        ("earer ", "EARER ", "oken "),
        re.compile(
            r"(?i)(authorization[\"'\\]*\s*[:=]\s*[\"'\\]*(?:bearer|token)\s+)(?=[A-Za-z_.~+/=-]*\d)[\w.~+/=-]{8,}"
        ),
        rf"\1{HIDDEN}",
    ),
    Form("a login", ("asic ", "ASIC "), re.compile(r"\b((?i:basic)\s+)([A-Za-z0-9+/]{8,}={0,2})"), _hide_basic),
)


@dataclass(frozen=True)
class SecretValue:
    """One value, and how it looks when something has encoded it. ``plain`` is the longest part that no encoding changes."""

    text: str
    plain: str
    pattern: re.Pattern[str] | None
    base64: tuple[tuple[str, re.Pattern[str]], ...]

    def hide(self, text: str, words: str) -> str:
        """Return ``text``, whose `long_words` are ``words``, with stars for the value, however it is encoded."""
        if self.plain in text:
            text = self.pattern.sub(HIDDEN, text) if self.pattern else text.replace(self.text, HIDDEN)
        for core, run in self.base64 if words else ():
            if core in words:
                text = run.sub(HIDDEN, text)
        return text


def long_words(text: str) -> str:
    """Return what of ``text`` may be a key or an encoded value. In most texts that is little, and soon looked through."""
    return " ".join([word for word in text.split() if len(word) >= LONG]) if len(text) >= LONG else ""


@lru_cache(maxsize=1024)
def secret_value(text: str) -> SecretValue:
    """Return a value with its encodings."""
    parts = re.findall(r"[A-Za-z0-9._-]+", text)
    plain = max(parts, key=len, default="")
    encoded = "".join(_encoded(character, first=not at) for at, character in enumerate(text))
    pattern = None if plain == text else re.compile(encoded)
    cores = dict.fromkeys(_base64_cores(text.encode("utf-8", "surrogateescape")))
    return SecretValue(text, plain, pattern, tuple((core, _run_with(core)) for core in cores))


def _encoded(character: str, *, first: bool) -> str:
    """Return a pattern of a character: itself, however often escaped, percent-encoded, or by its number."""
    if re.fullmatch("[A-Za-z0-9._-]", character):
        return re.escape(character)
    data = character.encode("utf-8", "surrogateescape")
    units = character.encode("utf-16-be", "surrogatepass")
    escaped = [
        r"\\++" if character == "\\" else rf"\\*+{re.escape(character)}",
        "".join(rf"\\+u(?i:{units[at : at + 2].hex()})" for at in range(0, len(units), 2)),
        "".join(rf"\\+x(?i:{byte:02x})" for byte in data),
        *({"\n": [r"\\+n"], "\r": [r"\\+r"], "\t": [r"\\+t"]}.get(character, [])),
    ]
    others = ["".join(f"%(?:25)*(?i:{byte:02x})" for byte in data), *([r"\+"] if character == " " else [])]
    begin = r"(?<!\\)" if first else ""  # a run of backslashes is looked through once
    return f"(?:{begin}(?:{'|'.join(escaped)})|{'|'.join(others)})"


def _base64_cores(data: bytes) -> Iterator[str]:
    """Yield what base64 of ``data`` has whatever stands before and after it, at each of the three places it may begin."""
    for before in range(3):
        bits = 8 * (before + len(data))
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            core = encode(bytes(before) + data)[-(-8 * before // 6) : bits // 6].decode()
            if len(core) >= 8:  # less may be a word
                yield core


def _run_with(core: str) -> re.Pattern[str]:
    letters = "[A-Za-z0-9+/=_-]"
    return re.compile(f"(?<!{letters}){letters}*?{re.escape(core)}{letters}*")


def parts_of(name: str, value: str) -> Iterator[str]:
    """Yield what the secret variable ``name`` holds, and the password in it: of a login, or of a connection string."""
    yield value
    for names, pattern in PASSWORDS:
        if names.search(name) and (found := pattern.search(value)):
            yield unquote(found[1])
