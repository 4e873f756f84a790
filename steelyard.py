"""Steelyard from Python: campaigns, and what they leave in the store.

    from steelyard import campaign

    result = campaign({"name": "nightly", "models": ["/data/my-checkpoint"], "benchmarks": ["gsm8k"]})
    print(result.leaderboard)

Each name is imported when it is first used: `open_store` loads neither Prefect nor vLLM. The import raises ImportError where a
folder of the user's would be imported instead of one of Steelyard's packages.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.campaign import CampaignSpec, load_spec
    from core.compare.between import compare_sides as compare
    from core.errors import SteelyardError, UserError
    from core.model.placement import Plan
    from core.results import Store, open_store
    from flows.campaign import CampaignFailedError, campaign
    from flows.rescore import rescore

__all__ = [
    "CampaignFailedError",
    "CampaignSpec",
    "Plan",
    "SteelyardError",
    "Store",
    "UserError",
    "campaign",
    "compare",
    "load_spec",
    "open_store",
    "plan",
    "rescore",
]

_PACKAGES = ("core", "engines", "tasks", "flows", "deployments")
_HOMES = {
    "CampaignFailedError": "flows.campaign:CampaignFailedError",
    "CampaignSpec": "core.campaign:CampaignSpec",
    "Plan": "core.model.placement:Plan",
    "SteelyardError": "core.errors:SteelyardError",
    "Store": "core.results:Store",
    "UserError": "core.errors:UserError",
    "campaign": "flows.campaign:campaign",
    "compare": "core.compare.between:compare_sides",
    "load_spec": "core.campaign:load_spec",
    "open_store": "core.results:open_store",
    "rescore": "flows.rescore:rescore",
}


def plan(spec: CampaignSpec | Mapping[str, Any] | str | Path) -> Plan:
    """Check a campaign and place its models: the fleet, and each model's engine, GPUs and reason. Starts nothing.

    ``spec`` is a specification, a mapping with its fields, or the path of its YAML or JSON file. Raises `UserError` with one line
    per problem: wrong fields, unknown benchmarks and engine arguments, checkpoints that cannot be read, models that fit nowhere.
    """
    from core.campaign import load_spec
    from core.planning.plan import make_plan
    from engines.session.arguments import check_arguments

    checked = load_spec(spec)
    check_arguments(checked.models)
    return make_plan(checked)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _check_packages() -> None:
    """Raise ImportError where one of Steelyard's packages would be imported from elsewhere than beside this file."""
    ours = Path(__file__).resolve().parent
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin) if spec and spec.origin else None
        if found is None or found.resolve() != ours / package / "__init__.py":
            raise ImportError(_in_the_way(package, found))


def _in_the_way(package: str, found: Path | None) -> str:
    if found is None:
        return f"Steelyard's package {package!r} is not beside {__file__}: install Steelyard again"
    path = found.parent if found.name == "__init__.py" else found
    return (
        f"{path} is in the way: Python imports it as {package!r}, which is one of Steelyard's own packages. Keep the script, and "
        f"run it, in a directory without {'/, '.join(_PACKAGES[:-1])}/ or {_PACKAGES[-1]}/, or have a worker run the campaign: "
        'prefect.deployments.run_deployment("campaign/campaign", parameters={"spec": …})'
    )


_check_packages()
