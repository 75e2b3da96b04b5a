"""Dates and times of day: one form for the ways to write one."""

import re

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,? (?P<year>\d{4}))?"
_WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,? )?(?:the )?"
_DATES = [
    re.compile(_WEEKDAY + form, re.I)
    for form in (
        rf"{_DAY}(?: of)? {_MONTH}{_YEAR}",
        rf"{_MONTH} {_DAY}{_YEAR}",
        r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)",
    )
]
_TIME = re.compile(
    r"(?P<hour>\d{1,2})(?:[:.](?P<minute>\d\d))?(?:[:.](?P<second>\d\d))? ?(?P<half>[ap])\.? ?m\.?", re.I
)
_NOON = {"noon": "12 pm", "midnight": "12 am", "12 noon": "12 pm", "12:00 noon": "12 pm", "12 midnight": "12 am"}


def date_or_time(text: str) -> str | None:
    """`2024-05-06`, `--05-06` where there is no year, or `14:30:00`; None for what is neither. A date in figures alone
    is none but for ISO 8601's: which number is the month depends on the country.
    """
    text = " ".join(text.split())
    for form in _DATES:
        if found := form.fullmatch(text):
            month = found["month"].lower()[:3]
            number = int(month) if month.isdecimal() else _MONTHS.index(month) + 1
            day = int(found["day"])
            return f"{found['year'] or '-'}-{number:02}-{day:02}" if 1 <= number <= 12 and 1 <= day <= 31 else None
    if found := _TIME.fullmatch(_NOON.get(text.lower(), text)):
        hour, minute, second = (int(found[part] or 0) for part in ("hour", "minute", "second"))
        if 1 <= hour <= 12 and minute < 60 and second < 60:
            return f"{hour % 12 + 12 * (found['half'] in 'pP'):02}:{minute:02}:{second:02}"
    return None
