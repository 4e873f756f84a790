"""The files that start workers, read by what reads them: systemd, Kubernetes, Prefect, bash. Misspelt fields are refused."""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from prefect.cli.deploy._config import _load_deploy_configs_and_actions
from prefect.cli.deploy._models import PrefectYamlModel, RawScheduleConfig
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.steps import set_working_directory
from prefect.exceptions import MissingFlowError
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.schema_tools import is_valid_schema, validate
from prefect.utilities.templating import apply_values, find_placeholders
from prefect.workers.base import BaseJobConfiguration
from pydantic import BaseModel
from rich.console import Console

from core.campaign import CampaignSpec
from deployments import cli

kubernetes_validate = importlib.import_module("kubernetes_validate")  # it has no types

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = ROOT / "deployments"
WORKER_UNIT = DEPLOYMENTS / "systemd" / "steelyard-worker@.service"
UNITS = [WORKER_UNIT, DEPLOYMENTS / "systemd" / "steelyard-prefect.service"]
ENVIRONMENT = DEPLOYMENTS / "systemd" / "worker.env.example"
MANIFESTS = DEPLOYMENTS / "kubernetes" / "worker.yaml"
TEMPLATE = DEPLOYMENTS / "kubernetes" / "job_template.json"
SBATCH = DEPLOYMENTS / "slurm" / "steelyard-worker.sbatch"
PREFECT_YAML = ROOT / "prefect.yaml"

STOP_SECONDS = 120  # a worker's, to end its flow runs and their engines


# systemd

SYSTEMD = Path("/usr/lib/systemd/systemd")
UNIT_KEYS = {
    "Unit": {"Description", "Documentation", "Wants", "Requires", "After", "Before", "ConditionPathExists"},
    "Service": {
        *("Type", "User", "Group", "WorkingDirectory", "StateDirectory", "StateDirectoryMode", "UMask"),
        *("Environment", "EnvironmentFile", "ExecStartPre", "ExecStart", "ExecStop", "ExecStopPost"),
        *("Restart", "RestartSec", "SuccessExitStatus", "KillMode", "KillSignal", "TimeoutStopSec", "OOMPolicy"),
        *("TasksMax", "LimitNOFILE", "LimitMEMLOCK"),
        *("NoNewPrivileges", "CapabilityBoundingSet", "PrivateDevices", "PrivateTmp", "ProtectSystem", "ProtectHome"),
        *("ProtectClock", "ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules"),
        *("ProtectKernelTunables", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime"),
        *("RestrictSUIDSGID", "LockPersonality", "SystemCallArchitectures", "KeyringMode"),
    },
    "Install": {"WantedBy", "RequiredBy", "Alias"},
}
# Each was seen, or is documented, to hide the GPUs or to keep bubblewrap from its namespaces.
BREAKS_GPUS_OR_SANDBOX = {
    *("PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "MemoryDenyWriteExecute", "PrivateTmp"),
    *("RestrictNamespaces", "PrivateUsers", "ProtectKernelTunables", "ProtectKernelLogs", "ProtectProc", "ProcSubset"),
    "ProtectHostname",
}


def unit_lines(text: str) -> Iterator[tuple[str, str, str]]:
    """Section, key and value of each line. Raises ValueError for a line that is none of systemd's."""
    section = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith(("#", ";")):
            continue
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
        elif section and "=" in line:
            key, _, value = line.partition("=")
            yield section, key, value
        else:
            raise ValueError(f"not a unit's line: {line!r}")


def unknown_unit_keys(text: str) -> list[str]:
    return [f"{section}.{key}" for section, key, _ in unit_lines(text) if key not in UNIT_KEYS.get(section, set())]


def unit_values(path: Path, key: str) -> list[str]:
    return [value for _, name, value in unit_lines(path.read_text()) if name == key]


def systemd_verify(path: Path, folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """What systemd says about a unit, with programs that are here in place of those in /opt, and with ``changes``."""
    text = path.read_text().replace("/opt/steelyard/.venv/bin/", f"{Path(sys.executable).parent}/")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    unit = folder / path.name.replace("@.", "@gpu.")
    unit.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine"
)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_has_only_known_sections_and_keys(path: Path) -> None:
    text = path.read_text()
    assert unknown_unit_keys(text) == []
    assert {section for section, _, _ in unit_lines(text)} == {"Unit", "Service", "Install"}


def test_a_unit_with_a_misspelt_key_section_or_line_is_refused() -> None:
    text = WORKER_UNIT.read_text()
    assert unknown_unit_keys(text.replace("KillMode=", "KilMode=")) == ["Service.KilMode"]
    assert "Services.Type" in unknown_unit_keys(text.replace("[Service]", "[Services]"))
    with pytest.raises(ValueError, match="not a unit's line: 'KillMode mixed'"):
        unknown_unit_keys(text.replace("KillMode=mixed", "KillMode mixed"))


@pytest.mark.skipif(not SYSTEMD.exists(), reason="no systemd on this machine")
def test_our_list_of_keys_is_systemd_s() -> None:
    items = subprocess.run([SYSTEMD, "--dump-configuration-items"], capture_output=True, text=True, check=True).stdout
    its = {(section, key) for section, key, _ in unit_lines(items)}
    assert {(section, key) for section, keys in UNIT_KEYS.items() for key in keys} <= its


@needs_systemd_analyze
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_a_unit_and_refuses_a_misspelt_one(path: Path, tmp_path: Path) -> None:
    done = systemd_verify(path, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Unknown key 'KilMode'" in systemd_verify(path, tmp_path, KillMode="KilMode").stderr
    assert "Failed to parse" in systemd_verify(path, tmp_path, mixed="mixd").stderr


def test_the_worker_s_unit_leaves_gpus_and_sandbox_alone() -> None:
    assert not {key for _, key, _ in unit_lines(WORKER_UNIT.read_text())} & BREAKS_GPUS_OR_SANDBOX


def test_a_stop_reaches_the_worker_alone_and_waits_for_its_flow_runs() -> None:
    assert unit_values(WORKER_UNIT, "KillMode") == ["mixed"]
    assert int(unit_values(WORKER_UNIT, "TimeoutStopSec")[0]) >= STOP_SECONDS


def test_the_server_listens_on_loopback_only() -> None:
    assert "--host 127.0.0.1" in unit_values(UNITS[1], "ExecStart")[0]


def example_environment() -> dict[str, str]:
    """The variables of worker.env.example, those in comments too."""
    pairs = re.findall(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", ENVIRONMENT.read_text(), re.MULTILINE)
    return dict(pairs)


def test_the_example_environment_names_the_variables_and_holds_no_secret() -> None:
    variables = example_environment()
    assert {"PREFECT_API_URL", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(variables)
    secrets = {name: value for name, value in variables.items() if re.search("KEY|SECRET|TOKEN|AUTH", name)}
    assert set(secrets.values()) == {""}
    assert unit_values(WORKER_UNIT, "EnvironmentFile") == ["/etc/steelyard/worker.env"]
    assert "-m 600" in ENVIRONMENT.read_text()


# Kubernetes


def manifests() -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all(MANIFESTS.read_text())}


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    return workload["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_kubernetes_schema_accepts_the_worker_s_manifests(version: str) -> None:
    assert set(manifests()) == {"ConfigMap", "Deployment"}
    for document in manifests().values():
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("terminationGracePeriodSeconds:", "terminationGracePeriodSecond:"),
        ("allowPrivilegeEscalation:", "allowPrivilegesEscalation:"),
        ("volumeMounts:", "volumesMounts:"),
        ("replicas: 2", "replicas: two"),
        ("secretRef: {name:", "secretRef: {names:"),
    ],
)
def test_kubernetes_schema_refuses_a_misspelt_manifest(old: str, new: str) -> None:
    text = MANIFESTS.read_text()
    assert old in text
    deployment = list(yaml.safe_load_all(text.replace(old, new)))[1]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, "1.37", strict=True)


def test_the_worker_s_manifests_fit_together() -> None:
    config, deployment = manifests()["ConfigMap"], manifests()["Deployment"]
    spec, (container,) = pod(deployment), pod(deployment)["containers"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    (apart,) = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == apart["labelSelector"]["matchLabels"]
    assert {"configMapRef": {"name": config["metadata"]["name"]}} in container["envFrom"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    assert spec["terminationGracePeriodSeconds"] >= STOP_SECONDS
    assert spec["securityContext"]["runAsNonRoot"]
    assert not [name for name in config["data"] if re.search("KEY|SECRET|TOKEN|AUTH", name)]


# Prefect's Kubernetes work pools


def template() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(TEMPLATE.read_text())
    return loaded


def variable_problems(base: dict[str, Any], job_variables: dict[str, Any]) -> list[str]:
    """What Prefect's server says about a deployment's job variables on a pool with this template."""
    defaults = BaseJobConfiguration._get_base_config_defaults(base["variables"]["properties"])
    errors = validate({**defaults, **job_variables}, copy.deepcopy(base["variables"]), preprocess=True)
    return [error.message for error in errors]


def undeclared(base: dict[str, Any]) -> set[str]:
    """Placeholders of the job configuration that are neither declared variables nor Prefect's own (``ctx``)."""
    names = {placeholder.name for placeholder in find_placeholders(base["job_configuration"])}
    return {name for name in names - set(base["variables"]["properties"]) if not name.startswith("ctx.")}


def job(base: dict[str, Any], **job_variables: Any) -> dict[str, Any]:
    """The manifest of a flow run, before Prefect's Kubernetes worker adds the run's own environment and command."""
    defaults = BaseJobConfiguration._get_base_config_defaults(base["variables"]["properties"])
    values = {**defaults, "name": "calm-cat", **job_variables}
    manifest = apply_values(base["job_configuration"]["job_manifest"], values)
    # Prefect's worker asks for these two here, Kubernetes knows them one level up and drops them.
    assert [pod(manifest).pop(name) for name in ("parallelism", "completions")] == [1, 1]
    return manifest


def test_prefect_accepts_the_job_template() -> None:
    base = template()
    assert set(base) == {"variables", "job_configuration"}
    is_valid_schema(base["variables"])
    WorkPoolCreate(name="gpu-pods", type="kubernetes", base_job_template=base)
    assert variable_problems(base, {}) == []
    assert variable_problems(base, {"gpus": 4, "memory": "256Gi", "service_account_name": "evals", "env.A": "b"}) == []


def test_every_placeholder_is_declared_and_every_variable_used() -> None:
    base = template()
    assert undeclared(base) == set()
    used = {placeholder.name for placeholder in find_placeholders(base["job_configuration"])}
    assert set(base["variables"]["properties"]) == used


def test_kubernetes_schema_accepts_the_rendered_job() -> None:
    manifest = job(template(), gpus=4, memory="256Gi", service_account_name="evals", namespace="evals")
    kubernetes_validate.validate(manifest, "1.37", strict=True)
    (container,) = pod(manifest)["containers"]
    assert pod(manifest)["terminationGracePeriodSeconds"] >= STOP_SECONDS
    assert container["resources"]["limits"] == {"memory": "256Gi", "nvidia.com/gpu": 4}
    assert pod(manifest)["serviceAccountName"] == manifest["metadata"]["namespace"] == "evals"
    assert [entry["name"] for entry in container["env"]] == ["POD_NAME", "POD_UID", "POD_NAMESPACE"]
    kubernetes_validate.validate(job(template()), "1.37", strict=True)
    assert "serviceAccountName" not in pod(job(template()))


def test_a_misspelt_job_template_or_variable_is_refused() -> None:
    base = template()
    base["variables"]["properties"]["gpus"]["type"] = "int"
    with pytest.raises(ValueError, match="'int' is not valid"):
        is_valid_schema(base["variables"])
    text = TEMPLATE.read_text()
    assert undeclared(json.loads(text.replace("{{ gpus }}", "{{ gpu }}"))) == {"gpu"}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job(json.loads(text.replace('"envFrom"', '"envfrom"'))), "1.37", strict=True)
    assert "'gpu' does not match" in variable_problems(template(), {"gpu": 4})[0]
    assert "'four' is not of type 'integer'" in variable_problems(template(), {"gpus": "four"})[0]
    assert "'64 GB' does not match" in variable_problems(template(), {"memory": "64 GB"})[0]


# Slurm

# Those of sbatch's manual page.
SBATCH_OPTIONS = {
    *("account", "acctg-freq", "array", "batch", "bb", "bbf", "begin", "chdir", "cluster-constraint", "clusters"),
    *("comment", "constraint", "container", "container-id", "contiguous", "core-spec", "cores-per-socket", "cpu-freq"),
    *("cpus-per-gpu", "cpus-per-task", "deadline", "delay-boot", "dependency", "distribution", "error", "exclude"),
    *("exclusive", "export", "export-file", "extra", "extra-node-info", "get-user-env", "gid", "gpu-bind", "gpu-freq"),
    *("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres", "gres-flags", "help", "hint", "hold"),
    *("ignore-pbs", "input", "job-name", "kill-on-invalid-dep", "licenses", "mail-type", "mail-user", "mcs-label"),
    *("mem", "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nice", "no-kill", "no-requeue"),
    *("nodefile", "nodelist", "nodes", "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node"),
    *("ntasks-per-socket", "open-mode", "output", "overcommit", "oversubscribe", "parsable", "partition", "power"),
    *("prefer", "priority", "profile", "propagate", "qos", "quiet", "reboot", "requeue", "reservation", "signal"),
    *("sockets-per-node", "spread-job", "stepmgr", "switches", "test-only", "thread-spec", "threads-per-core", "time"),
    *("time-min", "tmp", "tres-bind", "tres-per-task", "uid", "usage", "use-min-nodes", "verbose", "version", "wait"),
    *("wait-all-nodes", "wckey", "wrap"),
}


def directives(text: str) -> dict[str, str]:
    """Options of the ``#SBATCH`` lines. Raises ValueError for one that sbatch would not read or does not know."""
    head = re.split(r"^(?!#|$).", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", head, re.MULTILINE))
    lines = re.findall(r"^#\s*SBATCH.*$", text, re.MULTILINE | re.IGNORECASE)
    if len(lines) != len(found):
        raise ValueError(f"sbatch reads {len(found)} of {len(lines)} lines")
    if unknown := set(found) - SBATCH_OPTIONS:
        raise ValueError(f"not options of sbatch: {sorted(unknown)}")
    return found


@pytest.fixture
def allocation(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A repository with a stand-in for ``steelyard`` and the environment of a job. The stand-in says what it was given."""
    program = tmp_path / ".venv" / "bin" / "steelyard"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, signal, sys\n"
        "print(os.getpid(), os.environ['PREFECT_API_URL'], os.environ['STEELYARD_HOME'], *sys.argv[1:], flush=True)\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(17))\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    program.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "42",
        "SLURM_GPUS_ON_NODE": "4",
        "STEELYARD_ENV": str(ENVIRONMENT),
    }
    return tmp_path, environment


def test_bash_reads_the_job_script_and_sbatch_its_directives() -> None:
    subprocess.run(["bash", "-n", SBATCH], check=True)
    options = directives(SBATCH.read_text())
    assert {"nodes", "gpus-per-node", "requeue", "open-mode"} <= set(options)
    who, _, seconds = options["signal"].partition("@")
    assert who == "B:TERM"
    assert int(seconds) >= STOP_SECONDS + 60  # Slurm may be that late


def test_a_misspelt_or_late_directive_is_refused() -> None:
    text = SBATCH.read_text()
    with pytest.raises(ValueError, match="gpu-per-node"):
        directives(text.replace("--gpus-per-node=8", "--gpu-per-node=8"))
    with pytest.raises(ValueError, match="sbatch reads"):
        directives(text.replace("#SBATCH --requeue", "# SBATCH --requeue"))
    with pytest.raises(ValueError, match="sbatch reads"):
        directives(text + "#SBATCH --mem=1\n")


def test_the_job_script_becomes_the_worker_and_hands_it_the_signal(allocation: tuple[Path, dict[str, str]]) -> None:
    home, environment = allocation
    with subprocess.Popen(["bash", SBATCH], cwd="/", env=environment, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        said = worker.stdout.readline().split()
        assert said[:6] == [str(worker.pid), "http://127.0.0.1:4200/api", str(home), "worker", "gpu", "--limit"]
        assert said[6:9] == ["4", "--name", said[8]]
        assert said[8].startswith("slurm-42-")
        assert worker.stdout.readline() == "True\n"  # Prefect ends a worker by SIGINT
        assert worker.stdout.readline() == "ready\n"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 17


def test_the_job_script_says_what_it_misses(allocation: tuple[Path, dict[str, str]]) -> None:
    home, environment = allocation
    environment["STEELYARD_ENV"] = str(home / "none.env")
    done = subprocess.run(["bash", SBATCH], env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode != 0
    assert "none.env: No such file" in done.stderr


# prefect.yaml


def prefect_reads(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """Deployments and steps as ``prefect deploy`` reads them, and what it complains of."""
    console = Console(file=io.StringIO(), record=True)
    deployments, actions = _load_deploy_configs_and_actions(path, console=console)
    return deployments, actions, console.export_text()


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """Prefect's models inside an annotation; not those of schedules, which refuse unknown fields themselves."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_of(argument)]


def unknown_fields(data: Any, model: type[BaseModel], place: str = "") -> list[str]:
    """Fields that Prefect's model does not have: it would pass over them in silence."""
    known = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    found = [f"{place}{name}" for name in data if name not in known]
    for name, value in data.items():
        inner = models_of(known.get(name))
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and len(inner) == 1:
                found += unknown_fields(each, inner[0], f"{place}{name}.")
    return found


def schedule_example() -> list[dict[str, Any]]:
    """The commented schedule, without its comment signs."""
    block = re.search(r"^    # schedules:\n(?:    # .*\n)+", PREFECT_YAML.read_text(), re.MULTILINE)
    assert block is not None
    loaded: list[dict[str, Any]] = yaml.safe_load(block.group().replace("    # ", ""))["schedules"]
    return loaded


def test_prefect_reads_the_deployments_and_their_pools() -> None:
    deployments, actions, complaints = prefect_reads(PREFECT_YAML)
    assert complaints == ""
    assert {each["name"]: each["work_pool"]["name"] for each in deployments} == {
        "campaign": "campaign",
        "rescore": "campaign",
        "gpu": "gpu",
        "ray": "ray",
    }
    assert unknown_fields(yaml.safe_load(PREFECT_YAML.read_text()), PrefectYamlModel) == []
    assert not any("schedules" in each or "schedule" in each for each in deployments)
    assert len(actions["pull"]) == 1


def test_entrypoints_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    deployments, _, _ = prefect_reads(PREFECT_YAML)
    entrypoints = [each["entrypoint"] for each in deployments]
    flows: list[Flow[..., Any]] = [load_flow_from_entrypoint(each, use_placeholder_flow=False) for each in entrypoints]
    assert [flow.name for flow in flows] == ["campaign", "rescore", "evaluate-model", "evaluate-model"]
    with pytest.raises(MissingFlowError, match="campain"):
        load_flow_from_entrypoint("flows/campaign.py:campain", use_placeholder_flow=False)


def test_the_pull_step_goes_to_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEELYARD_HOME", str(ROOT))
    _, actions, _ = prefect_reads(PREFECT_YAML)
    (step,) = actions["pull"]
    inputs = apply_values(step["prefect.deployments.steps.set_working_directory"], {})
    assert set_working_directory(**inputs) == {"directory": str(ROOT)}
    for path in (WORKER_UNIT, MANIFESTS, TEMPLATE, SBATCH):
        assert "STEELYARD_HOME" in path.read_text()


def test_a_misspelt_field_of_prefect_yaml_is_refused(tmp_path: Path) -> None:
    text = PREFECT_YAML.read_text()
    for old, new, field in (
        ("work_pool:", "workpool:", "deployments.workpool"),
        ("{name: ray,", "{nam: ray,", "deployments.work_pool.nam"),
        ("pull:", "pul:", "pul"),
    ):
        assert old in text
        assert field in unknown_fields(yaml.safe_load(text.replace(old, new)), PrefectYamlModel)
    path = tmp_path / "prefect.yaml"
    path.write_text(text.replace("tags: [steelyard]", "tags: {steelyard: 1}", 1))
    deployments, _, complaints = prefect_reads(path)
    assert deployments == []
    assert "campaign: tags" in complaints


def test_the_example_schedule_is_one_and_is_off() -> None:
    (example,) = schedule_example()
    schedule = RawScheduleConfig(**example)
    assert schedule.active is False
    assert schedule.cron is not None
    CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    CampaignSpec.model_validate(schedule.parameters["spec"])
    with pytest.raises(ValueError, match="timezon"):
        RawScheduleConfig(**{**example, "timezon": "UTC"})


# What the files ask of `steelyard worker`


def worker_commands() -> dict[str, list[str]]:
    """Arguments after ``steelyard worker``, of each file."""
    (container,) = pod(manifests()["Deployment"])["containers"]
    script = re.search(r"^exec \S+/steelyard (.*)$", SBATCH.read_text(), re.MULTILINE)
    assert script is not None
    return {
        "systemd": shlex.split(unit_values(WORKER_UNIT, "ExecStart")[0])[1:],
        "kubernetes": container["command"][1:],
        "slurm": shlex.split(script[1]),
    }


@pytest.mark.parametrize("where", ["systemd", "kubernetes", "slurm"])
def test_steelyard_worker_has_the_options_that_the_files_use(where: str) -> None:
    command, pool, *rest = worker_commands()[where]
    assert command == "worker"
    assert pool in ("%i", "gpu")
    commands = getattr(typer.main.get_command(cli.app), "commands", {})
    if "worker" not in commands:
        pytest.skip("`steelyard worker` is not there yet")
    known = {option for parameter in commands["worker"].params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= known
