"""A real Kubernetes API without a cluster: kube-apiserver and etcd, built once from their sources. No kubelet, no
controllers: what nobody does here is done by the test itself (`kserve.py`).

Used by the tests of what is applied to a cluster. The programs are kept in the user's cache beside the other parts.
"""

import hashlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from kubernetes import client, config
from kubernetes.dynamic import DynamicClient

from service import embedded, gobuild
from service.gobuild import Program
from service.supervise import Process, Supervisor

SOURCES = Path(__file__).parent / "kube"
PROGRAMS = {
    "etcd": Program("go.etcd.io/etcd/server/v3", str(SOURCES / "etcd")),
    "kube-apiserver": Program("k8s.io/kubernetes/cmd/kube-apiserver", str(SOURCES / "kubernetes")),
}


@dataclass(frozen=True)
class KubeApi:
    """A running API server."""

    folder: Path
    address: str
    certificate: Path
    token: str  #: of an administrator

    def kubeconfig(self, namespace: str, token: str = "") -> Path:
        """A file for KUBECONFIG, as the administrator or as whoever has the token."""
        path = self.folder / f"kubeconfig-{namespace}-{hashlib.sha256(token.encode()).hexdigest()[:8]}"
        cluster = {"server": self.address, "certificate-authority": str(self.certificate)}
        context = {"cluster": "here", "user": "me", "namespace": namespace}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": token or self.token}}],
            "contexts": [{"name": "here", "context": context}],
            "current-context": "here",
        }
        path.write_text(json.dumps(document))
        path.chmod(0o600)
        return path

    def admin(self) -> DynamicClient:
        """A client that may do everything."""
        made = client.Configuration()
        config.load_kube_config(str(self.kubeconfig("default")), client_configuration=made)
        return DynamicClient(client.ApiClient(made))

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """Apply manifests as an administrator, as `kubectl apply --server-side` does."""
        admin = self.admin()
        for one in documents:
            kind = admin.resources.get(api_version=one["apiVersion"], kind=one["kind"])
            namespace = one["metadata"].get("namespace")
            admin.server_side_apply(kind, body=dict(one), namespace=namespace, field_manager="admin")

    def token_of(self, namespace: str, account: str) -> str:
        """A service account's token, made by the server as it makes those of pods."""
        admin = self.admin()
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        answer = admin.request("post", path, body=body)
        return str(answer["status"]["token"])


def manifests(path: Path) -> list[dict[str, Any]]:
    """The objects of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


@contextmanager
def kube_api(folder: Path) -> Iterator[KubeApi]:
    """Both servers, for as long as the block lasts."""
    token, keys = embedded.secret(folder, "admin"), folder / "keys"
    keys.mkdir(parents=True, exist_ok=True)
    users = embedded.write_private(keys / "tokens.csv", f"{token},admin,admin,system:masters\n")
    key = keys / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    with Supervisor(folder, print) as supervisor:
        ports = embedded.ports(folder, ("etcd", "peer", "kube"))
        supervisor.start(_etcd(folder, ports))
        supervisor.start(_server(folder, ports, users, key))
        api = KubeApi(folder, f"https://127.0.0.1:{ports['kube']}", keys / "apiserver.crt", token)
        yield api


def _etcd(folder: Path, ports: Mapping[str, int]) -> Process:
    url, peer = f"http://127.0.0.1:{ports['etcd']}", f"http://127.0.0.1:{ports['peer']}"
    argv = [
        *(str(_program("etcd")), f"--data-dir={folder / 'etcd'}", "--log-level=error", "--unsafe-no-fsync"),
        *(f"--listen-client-urls={url}", f"--advertise-client-urls={url}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"),
    ]
    ready = lambda: embedded.answers(ports["etcd"], "/health")  # noqa: E731 - one word for the line below
    return Process(name="etcd", argv=argv, env={"PATH": os.environ["PATH"]}, ready=ready)


def _server(folder: Path, ports: Mapping[str, int], users: Path, key: Path) -> Process:
    address = f"https://127.0.0.1:{ports['kube']}"
    argv = [
        *(str(_program("kube-apiserver")), f"--etcd-servers=http://127.0.0.1:{ports['etcd']}"),
        *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={ports['kube']}"),
        *(f"--cert-dir={folder / 'keys'}", f"--token-auth-file={users}", "--authorization-mode=RBAC"),
        *(f"--service-account-issuer={address}", f"--service-account-key-file={key}"),
        *(f"--service-account-signing-key-file={key}", "--service-cluster-ip-range=10.96.0.0/24"),
        *("--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount", "--profiling=false"),
    ]
    certificate, token = folder / "keys" / "apiserver.crt", embedded.secret(folder, "admin")
    ready = lambda: _is_ready(address, certificate, token)  # noqa: E731 - one word for the line below
    env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return Process(name="kube-apiserver", argv=argv, env=env, ready=ready, within=120)


def _is_ready(address: str, certificate: Path, token: str) -> bool:
    if not certificate.exists():
        return False
    try:
        context = ssl.create_default_context(cafile=str(certificate))
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(f"{address}/readyz", headers=headers, verify=context, timeout=2).status_code == 200
    except (httpx.HTTPError, ssl.SSLError):
        return False


def _program(name: str) -> Path:
    program = PROGRAMS[name]
    digest = hashlib.sha256(sys.platform.encode() + (program.sources / "go.sum").read_bytes()).hexdigest()[:12]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "kfp-triggers" / "parts" / digest / name
    if not path.exists():
        gobuild.build(program, path, print)
    return path
