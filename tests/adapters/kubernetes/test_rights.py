"""Rights: each that is missing is named, and the roles in deploy/ give no more than is needed."""

import pytest
import yaml
from helpers.kube_shop import Emulated, config, make
from helpers.paths import ROOT
from helpers.peak import hpa

import predict_scale
from deepscaler.adapters.kubernetes.cluster import KubernetesCluster
from deepscaler.errors import ClusterError
from testbed.kubernetes_api import Identity, Rule


def test_all_rights_are_enough(stub, shop):
    shop().check()
    assert len([path for path in stub.writes if "selfsubjectaccessreviews" in path]) == 8


@pytest.mark.parametrize(
    ("denied", "named"),
    [
        (("patch", "deployments/scale"), "patch deployments.apps/scale in namespace shop"),
        (("list", "horizontalpodautoscalers"), "list horizontalpodautoscalers.autoscaling in namespace shop"),
        (("list", "pods"), "list pods in namespace shop"),
        (("update", "leases"), "update leases.coordination.k8s.io in namespace shop"),
    ],
)
def test_a_missing_right_is_named(stub, shop, denied, named):
    stub.denied.add(denied)
    with pytest.raises(ClusterError, match=f"missing rights: {named}"):
        shop().check()


def test_without_a_lease_its_rights_arent_needed(stub, shop):
    stub.denied |= {(verb, "leases") for verb in ("get", "create", "update")}
    shop(lease={"enabled": False}).check()


def test_rights_of_the_emulated_api_are_checked(tmp_path):
    rules = [
        Rule(("get", "list"), namespaces=("shop",)),
        Rule(("create", "update"), ("leases",), namespaces=("shop",)),
    ]
    world = Emulated({"secret": Identity("reader", rules)})
    with world.server:
        settings = make(world, tmp_path)
        with pytest.raises(
            ClusterError, match=r"missing rights: patch deployments\.apps/scale in namespace shop\. Bind"
        ):
            KubernetesCluster(settings).check()
        cluster = KubernetesCluster(settings)
        cluster.workloads()
        assert "HTTP 403 Forbidden" in cluster.scale({"web": 3}).failed["web"]
        stale = KubernetesCluster(make(world, tmp_path, token="expired"))
        with pytest.raises(
            ClusterError,
            match="HTTP 401 Unauthorized: Unauthorized; the credentials are missing, wrong or expired",
        ):
            stale.workloads()


def test_the_role_of_advising_is_enough_and_no_more_is_needed(tmp_path, capsys):
    """It raises an HPA's minimum with its own eight rights; with act's, what is missing is named."""
    role = (ROOT / "deploy/overlays/advise/rights.yaml").read_text()
    acting = (ROOT / "deploy/overlays/act/rights.yaml").read_text()
    shadow = (ROOT / "deploy/base/rights/shadow.yaml").read_text()
    for text, enough in ((role, True), (acting, False)):
        world = Emulated({"secret": Identity("system:serviceaccount:deepscaler:deepscaler")})
        world.store.create(hpa())
        for item in (next(yaml.safe_load_all(text)), list(yaml.safe_load_all(shadow))[1]):
            world.store.create({**item, "metadata": {**item["metadata"], "namespace": "shop"}})
        with world.server:
            path = config(world, tmp_path, mode="advise", dry_run=False)
            assert predict_scale.main(["--config", path, "--once"]) == (0 if enough else 1)
            found = world.store.peek("autoscaling/horizontalpodautoscalers", "shop", "web")
            assert found["spec"]["minReplicas"] == (6 if enough else 2)
            assert predict_scale.main(["--config", path, "--give-back=all"]) == 0
        assert world.store.replicas("shop")["web"] == 2
    named = "missing rights: get horizontalpodautoscalers.autoscaling in namespace shop; patch horizontal"
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("roles", [("shadow",), ("shadow", "act")])
def test_the_roles_in_deploy_are_enough_and_no_more_is_needed(roles, tmp_path, capsys):
    """Shadow reads and decides with one Role; acting needs the other, and its absence is named."""
    world = Emulated({"secret": Identity("system:serviceaccount:deepscaler:deepscaler")})
    files = {"shadow": "base/rights/shadow.yaml", "act": "overlays/act/rights.yaml"}
    binding = list(yaml.safe_load_all((ROOT / "deploy/base/rights/shadow.yaml").read_text()))[1]
    for role in roles[-1:]:  # acting has a Role of its own in the place of the shadow's
        text = (ROOT / "deploy" / files[role]).read_text()
        for item in [next(yaml.safe_load_all(text)), binding]:
            world.store.create({**item, "metadata": {**item["metadata"], "namespace": "shop"}})
    with world.server:
        path = config(world, tmp_path)
        assert predict_scale.main(["--config", path, "--once", "--dry-run"]) == 0 and world.writes == []
        if "act" in roles:
            assert (
                predict_scale.main(["--config", path, "--once"]) == 0
                and world.store.replicas("shop")["web"] == 6
            )
        else:
            assert predict_scale.main(["--config", path, "--once"]) == 1
            assert (
                "missing rights: get deployments.apps in namespace shop; patch deployments.apps/scale"
                in capsys.readouterr().err
            )
