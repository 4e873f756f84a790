"""Automations on the Prefect server: runs whose process is gone, and alerts through a notification block."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from core.errors import UserError
from flows.dispatch import CAMPAIGN, HEARTBEAT
from tasks.publish import SCORE_DROPPED

TAG = "steelyard"  # of every deployment, and so of every run that a worker starts

ENDED = ("Completed", "Cached", "Failed", "TimedOut", "Cancelled", "Crashed")
MISSING_AFTER = timedelta(seconds=90)  # three heartbeats of a run that a worker starts
MAKE_A_BLOCK = "make one in the UI under Blocks (say Slack Webhook, named team), then name it: --alerts --notify slack-webhook/team"


def check_alerts(alerts: bool, notify: str | None) -> None:
    """Raise `core.errors.UserError` where alerts are asked for without a block, or a block is named without alerts."""
    if notify is not None and not alerts:
        raise UserError(f"notify = {notify!r}: goes with --alerts")
    if alerts and notify is None:
        raise UserError(f"--alerts needs the Prefect notification block that sends them: {MAKE_A_BLOCK}")
    if notify is not None and len([part for part in notify.split("/") if part]) != 2:
        raise UserError(f"notify = {notify!r}: use type/name, say slack-webhook/team")


def register_automations(client: SyncPrefectClient, notify: str | None) -> None:
    """Create or update the automation for missing heartbeats, and where ``notify`` names a block the alerts.

    Raises `core.errors.UserError` where there is no such block or it cannot notify.
    """
    wanted = [missing_heartbeat()]
    if notify is not None:
        block = _notification_block(client, notify)
        wanted += [campaign_failed(block), score_dropped(block)]
    for automation in wanted:
        _save(client, automation)


def missing_heartbeat() -> AutomationCore:
    """Return the automation for a process that was killed with its worker: its run would stay Running for ever."""
    return AutomationCore(
        name="steelyard: run without heartbeat",
        description=f"Marks a worker's run as Crashed when nothing was heard of it for {MISSING_AFTER.seconds} seconds.",
        trigger=EventTrigger(
            # Only what our deployments start: other runs on this server may beat less often, or not at all.
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.id": f"prefect.tag.{TAG}"},
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{state}" for state in ENDED)},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=MISSING_AFTER,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                force=False,  # a run that has ended in the meantime stays as it ended
                message=f"No heartbeat for {MISSING_AFTER.seconds} seconds: its process or its machine is gone. "
                "What is stored stays; run the campaign again to go on.",
            )
        ],
    )


def campaign_failed(block: UUID) -> AutomationCore:
    """Return the automation that notifies when a campaign ends Failed or Crashed, with the reason."""
    return AutomationCore(
        name="steelyard: campaign failed",
        description="Sends a notification when a campaign ends Failed or Crashed.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": CAMPAIGN},
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="Campaign {{ flow_run.name }}: {{ flow_run.state.name }}",
                body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
            )
        ],
    )


def score_dropped(block: UUID) -> AutomationCore:
    """Return the automation that notifies when a model scores less than in the campaign's run before."""
    return AutomationCore(
        name="steelyard: score dropped",
        description=f"Sends a notification for each event {SCORE_DROPPED} of a campaign.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "steelyard.campaign.*"},
            expect={SCORE_DROPPED},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="Score dropped: {{ event.resource['model'] }} on {{ event.resource['benchmark'] }}",
                body="{{ event.resource['prefect.resource.id'] }}: {{ event.resource['model'] }} on "
                "{{ event.resource['benchmark'] }} went from {{ event.resource['before'] }} to {{ event.resource['after'] }}.",
            )
        ],
    )


def _notification_block(client: SyncPrefectClient, notify: str) -> UUID:
    kind, name = notify.split("/")
    try:
        block = client.read_block_document_by_name(name, kind, include_secrets=False)
    except ObjectNotFound as error:
        raise UserError(f"notify = {notify!r}: the Prefect server has no such block; {MAKE_A_BLOCK}") from error
    if block.block_schema is None or "notify" not in block.block_schema.capabilities:
        raise UserError(f"notify = {notify!r}: is not a notification block; {MAKE_A_BLOCK}")
    return block.id


def _save(client: SyncPrefectClient, automation: AutomationCore) -> None:
    existing = client.read_automations_by_name(automation.name)
    if not existing:
        client.create_automation(automation)
        return
    kept, *doubles = existing
    # One that was switched off stays off. Validated from a full dump, since an update sends only fields that were set.
    full = automation.model_copy(update={"enabled": kept.enabled}).model_dump(mode="json", exclude={"owner_resource"})
    client.update_automation(kept.id, AutomationCore.model_validate(full))
    for double in doubles:
        client.delete_automation(double.id)
