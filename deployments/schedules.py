"""Schedules of a spec as Prefect's, checked before anything is registered."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.schedules import Cron, Interval, RRule, Schedule
from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import ValidationError

from core.campaign import CampaignSpec, ScheduleSpec
from core.errors import UserError

FIXES = {
    "cron": 'use five fields (minute hour day month weekday), say "0 2 * * *"',
    "interval_seconds": "use a number of seconds, say 86400",
    "rrule": 'use a rule of RFC 5545, say "FREQ=DAILY;BYHOUR=2;BYMINUTE=0;BYSECOND=0"',
}
# Intervals count from here, so that registering again does not move them.
ANCHOR = datetime(2020, 1, 1)


def schedules_of(spec: CampaignSpec) -> list[DeploymentScheduleCreate]:
    """Return the schedules of ``spec``, each with a slug that follows from its rule.

    Raises `core.errors.UserError` naming the field, the value and the fix for a rule that Prefect cannot follow.
    """
    found: dict[str, DeploymentScheduleCreate] = {}
    for index, schedule in enumerate(spec.schedules):
        field, value = rule(schedule)
        where = f"campaign {spec.name!r}: schedules[{index}].{field} = {value!r}"
        try:
            made = _prefect_schedule(schedule)
            never = next_start(schedule) is None
        except (ValueError, OverflowError) as error:
            raise UserError(f"{where}: {_one_line(error)}; {FIXES[field]}") from error
        if never:
            raise UserError(f"{where}: this rule has no date to come; {FIXES[field]}")
        if made.slug in found:
            raise UserError(f"{where}: given twice; leave one out")
        found[str(made.slug)] = DeploymentScheduleCreate.from_schedule(made)
    return list(found.values())


def rule(schedule: ScheduleSpec) -> tuple[str, str | float]:
    """Return field and value of the one rule of ``schedule``."""
    rules = {"cron": schedule.cron, "interval_seconds": schedule.interval_seconds, "rrule": schedule.rrule}
    return next((field, value) for field, value in rules.items() if value is not None)


def next_start(schedule: ScheduleSpec) -> datetime | None:
    """Return when ``schedule`` is due next, in its time zone; None where it never is. Raises `ValueError` for a bad rule."""
    timezone: Any = schedule.timezone
    anchor: Any = _anchor(schedule)
    server: CronSchedule | IntervalSchedule | RRuleSchedule
    if schedule.cron is not None:
        server = CronSchedule(cron=schedule.cron, timezone=timezone)
    elif schedule.rrule is not None:
        server = RRuleSchedule(rrule=schedule.rrule, timezone=timezone)
    else:
        interval = timedelta(seconds=schedule.interval_seconds or 0)
        server = IntervalSchedule(interval=interval, anchor_date=anchor, timezone=timezone)
    dates = asyncio.run(server.get_dates(n=1))
    return dates[0].astimezone(ZoneInfo(schedule.timezone)) if dates else None


def describe(schedules: Sequence[ScheduleSpec]) -> str:
    """Return a line for each schedule: its rule, its time zone and the next start."""
    return "\n".join(_line(schedule) for schedule in schedules) or "–"


def _line(schedule: ScheduleSpec) -> str:
    field, value = rule(schedule)
    text = f"every {value:g} s" if field == "interval_seconds" else str(value)
    if not schedule.active:
        return f"{text} {schedule.timezone}, paused"
    due = next_start(schedule)
    return f"{text} {schedule.timezone}, next {due:%Y-%m-%d %H:%M}" if due else f"{text} {schedule.timezone}"


def _prefect_schedule(schedule: ScheduleSpec) -> Schedule:
    field, value = rule(schedule)
    identity = repr((field, value, schedule.timezone))
    common: dict[str, Any] = {
        "timezone": schedule.timezone,
        "active": schedule.active,
        "slug": f"steelyard-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
    }
    if schedule.cron is not None:
        # A sixth field would be seconds at the end; people that write six mostly mean seconds at the start.
        if len(schedule.cron.split()) > 5:
            raise ValueError("more than five fields")
        return Cron(schedule.cron, **common)
    if schedule.rrule is not None:
        return RRule(schedule.rrule, **common)
    return Interval(schedule.interval_seconds or 0, anchor_date=_anchor(schedule), **common)


def _anchor(schedule: ScheduleSpec) -> datetime:
    return ANCHOR.replace(tzinfo=ZoneInfo(schedule.timezone))


def _one_line(error: ValueError | OverflowError) -> str:
    if isinstance(error, ValidationError):
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return " ".join(str(error).split()) or type(error).__name__
