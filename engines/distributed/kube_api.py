"""The few calls to Kubernetes' API that a RayCluster needs, and what their failures mean to a person.

lightkube finds the configuration and logs in (service account, certificates, tokens, login plugins); the calls are plain HTTP,
so that each has a time-out, watches too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from core.errors import EngineDiedError, SteelyardError, UserError
from core.redact import redact
from engines.distributed.kuberay_manifest import EXPIRES, MANAGED, timestamp

if TYPE_CHECKING:
    import httpx2
    from lightkube.config.models import UserExec

REQUEST_SECONDS = 15.0
CLUSTERS = "rayclusters.ray.io"
PLUGIN_API = "client.authentication.k8s.io"


class NotFoundError(SteelyardError):
    """The object is not there (any more)."""


class ConflictError(SteelyardError):
    """The object is there already, or has changed since it was read."""


class KubeApi:
    """Calls in one namespace. Thread-safe.

    Each raises `core.errors.UserError` for what a person can mend, `NotFoundError`, `ConflictError`, and
    `core.errors.EngineDiedError` for an API server that fails or does not answer.
    """

    def __init__(self, client: httpx2.Client, namespace: str) -> None:
        self.namespace = namespace
        self._client = client
        self._path = f"/apis/ray.io/v1/namespaces/{namespace}/rayclusters"

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Create a RayCluster."""
        self._call("create", "POST", self._path, manifest)

    def get(self, name: str) -> dict[str, Any]:
        """Read a RayCluster."""
        return self._call("get", "GET", f"{self._path}/{name}")

    def ours(self) -> list[dict[str, Any]]:
        """All RayClusters that Steelyard made."""
        selector = ",".join(f"{key}={value}" for key, value in MANAGED.items())
        return self._call("list", "GET", self._path, labelSelector=selector)["items"]

    def watch(self, name: str, since: str, seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (event type, RayCluster) for each change after resource version ``since``, for about ``seconds``."""
        wait = max(1, round(seconds))
        query = {"fieldSelector": f"metadata.name={name}", "resourceVersion": since}
        query |= {"watch": "true", "timeoutSeconds": str(wait)}
        asked = self._client.stream("GET", self._path, params=query, timeout=wait + REQUEST_SECONDS)
        with self._meaning("watch", CLUSTERS), asked as response:
            if response.is_error:
                response.read()
                raise refusal(response, "watch", CLUSTERS, self.namespace)
            for line in filter(str.strip, response.iter_lines()):
                event = _decoded(line)
                yield event.get("type", ""), event.get("object", {})

    def renew(self, name: str, expires: datetime) -> None:
        """Move the expiry of a RayCluster."""
        patch = {"metadata": {"annotations": {EXPIRES: timestamp(expires)}}}
        self._call("patch", "PATCH", f"{self._path}/{name}", patch, content_type="application/merge-patch+json")

    def delete(self, name: str, uid: str, since: str | None = None) -> None:
        """Begin to delete the RayCluster of this ``uid``; where ``since`` is given, only if unchanged after that version.

        It is seen until its pods are gone.
        """
        conditions = {"uid": uid, **({"resourceVersion": since} if since else {})}
        options = {"propagationPolicy": "Foreground", "preconditions": conditions}
        self._call("delete", "DELETE", f"{self._path}/{name}", options)

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of a RayCluster."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        return self._call("list", "GET", path, what="pods", labelSelector=f"ray.io/cluster={name}")["items"]

    def _call(
        self,
        verb: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        what: str = CLUSTERS,
        content_type: str = "application/json",
        **query: str,
    ) -> Any:
        content = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": content_type}
        with self._meaning(verb, what):
            response = self._client.request(method, path, content=content, headers=headers, params=query)
        if response.is_error:
            raise refusal(response, verb, what, self.namespace)
        return _decoded(response.text)

    @contextmanager
    def _meaning(self, verb: str, what: str) -> Iterator[None]:
        """Turn failures below HTTP into ours. No word of a login plugin is passed on: it may be a token."""
        import httpx2
        from lightkube.core.exceptions import ConfigError

        server = self._client.base_url
        try:
            yield
        except httpx2.HTTPError as error:
            why = f"no answer from Kubernetes at {server} ({type(error).__name__})"
            raise EngineDiedError(f"{verb} {what}: {why}") from None
        except (ConfigError, OSError, ValueError, KeyError, TypeError):
            mend = "try `kubectl get rayclusters` as this user"
            raise UserError(f"cannot log in to Kubernetes at {server}: {mend}") from None


def connect(namespace: str) -> KubeApi:
    """Reach Kubernetes as the pod's service account, else as KUBECONFIG or ~/.kube/config say. Sends nothing yet.

    Raises `core.errors.UserError` where the library or the configuration is missing or wrong.
    """
    try:
        from httpx2 import Timeout
        from lightkube.config.client_adapter import Client, ConnectionParams
        from lightkube.config.kubeconfig import KubeConfig
        from lightkube.core.exceptions import ConfigError
        from yaml import YAMLError
    except ImportError as error:
        raise UserError(f"kuberay needs {error.name}: pip install 'steelyard[kubernetes]'") from error
    mend = "run in a pod with a service account, or set KUBECONFIG to a kubeconfig with a current context and a user"
    try:
        chosen = KubeConfig.from_env().get()
        if chosen is None or chosen.user is None:
            raise ConfigError("the current context names no user")
        if chosen.user.exec is not None:
            _accept_newer(chosen.user.exec)
        client = Client(chosen, ConnectionParams(timeout=Timeout(REQUEST_SECONDS)))
    except ConfigError as error:
        raise UserError(f"no usable Kubernetes configuration ({error}): {mend}") from None
    except (AttributeError, KeyError, TypeError, ValueError, OSError, YAMLError) as error:
        # Its words may be credentials.
        raise UserError(f"no usable Kubernetes configuration ({type(error).__name__}): {mend}") from None
    return KubeApi(client, namespace)


def refusal(response: httpx2.Response, verb: str, what: str, namespace: str) -> SteelyardError:
    """Return the error that an error status of Kubernetes means."""
    try:
        status = response.json()
    except ValueError:
        status = {}
    said = redact(str(status.get("message", ""))) if isinstance(status, dict) else ""
    where = f"in namespace {namespace}"
    match response.status_code:
        case 401:
            return UserError(
                "Kubernetes does not accept the credentials (401): log in again, or renew the kubeconfig's user"
            )
        case 403 if "exceeded quota" in said:
            return UserError(f"{said}: ask for less, or for a larger quota {where}")
        case 403:
            return UserError(
                f"Kubernetes forbids to {verb} {what} {where}: the role of this account lacks the verb {verb!r} on {what}; "
                "apply deployments/kubernetes/rbac.yaml"
            )
        case 404 if (status.get("details") or {}).get("kind") == "namespaces":
            return UserError(f"kuberay.namespace = {namespace!r}: no such namespace; create it, or name another")
        case 404 if verb in ("create", "list", "watch"):
            return UserError(f"Kubernetes knows no {what} (ray.io/v1): install the KubeRay operator with its CRDs")
        case 404:
            return NotFoundError(f"{what}: not found {where}")
        case 409:
            return ConflictError(f"{verb} {what}: {said}")
        case 400 | 422:
            return UserError(f"Kubernetes does not accept the manifest: {said}")
    return EngineDiedError(f"{verb} {what}: Kubernetes answers {response.status_code} {said}".rstrip())


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        why = "Kubernetes' answer is not JSON: is the server in the kubeconfig an API server?"
        raise EngineDiedError(why) from None


def _accept_newer(plugin: UserExec) -> None:
    """Let lightkube, which knows login plugins of v1beta1, call those of v1: they answer alike, and read a variable."""
    from lightkube.config.models import NameValue

    info = {"apiVersion": plugin.apiVersion, "kind": "ExecCredential", "spec": {"interactive": False}}
    plugin.env = [*(plugin.env or []), NameValue("KUBERNETES_EXEC_INFO", json.dumps(info))]
    if plugin.apiVersion == f"{PLUGIN_API}/v1":
        plugin.apiVersion = f"{PLUGIN_API}/v1beta1"
