"""Names are checked against Kubernetes' rules when settings are read, and again before any request."""

import pytest
from helpers.fakes import make_settings
from helpers.kube_shop import make
from pydantic import ValidationError

from deepscaler.adapters.kubernetes.api import ApiError, KubeApi
from deepscaler.adapters.kubernetes.lease import LeaseElection
from deepscaler.settings import Settings

pytestmark = [pytest.mark.field, pytest.mark.stress]
HOSTILE = [
    "../kube-system",
    "shop/../kube-system",
    "..",
    "Shop",
    "shop_",
    "-shop",
    "a b",
    "a?x=1",
    "a%2fb",
    "",
]


def settings_of(kind="kubernetes", **app):
    document = make_settings(("web",)).model_dump()
    document["cluster"]["kind"] = kind
    document["app"].update(app)
    return document


@pytest.mark.parametrize("name", [*HOSTILE, "shop.eu", "a" * 64])
def test_a_namespace_that_cant_be_one_is_refused(name):
    with pytest.raises(ValidationError, match=r"app.namespace: .* can't be a name in Kubernetes"):
        Settings.model_validate(settings_of(namespace=name))
    assert Settings.model_validate(settings_of("testbed", namespace=name)).app.namespace == name


@pytest.mark.parametrize("name", [name for name in HOSTILE if name])
def test_a_deployment_that_cant_be_one_is_refused(name):
    for service in ({"deployment": name}, {"workloads": [name]}):
        with pytest.raises(ValidationError, match=r"app.services.web, its Deployment: .* can't be a name"):
            Settings.model_validate(settings_of(services={"web": service}))
    unscaled = {"web": {}, "other": {"deployment": name, "scaled": False}}
    assert Settings.model_validate(settings_of(services=unscaled))


def test_a_container_that_cant_be_one_is_refused():
    with pytest.raises(ValidationError, match=r"app.services.web.container: 'a.b' can't be a name"):
        Settings.model_validate(settings_of(services={"web": {"container": "a.b"}}))
    assert Settings.model_validate(
        settings_of(services={"web": {"deployment": "web.v2", "container": "srv"}})
    )


@pytest.mark.parametrize("name", ["Online Boutique", "shop/eu", "café", "shop.", "x" * 250])
def test_an_application_whose_name_makes_no_lease_is_refused_with_the_way_out(name):
    document = settings_of(name=name)
    with pytest.raises(ValidationError, match=r"app.name, of which the Lease.*set cluster.lease.name"):
        Settings.model_validate(document)
    document["cluster"]["lease"]["name"] = "shop"
    assert Settings.model_validate(document).lease_name == "shop"
    document["cluster"]["lease"].update(name=None, enabled=False)
    assert Settings.model_validate(document)


@pytest.mark.parametrize("key", ["name", "namespace"])
def test_a_lease_and_its_namespace_are_checked(key):
    document = settings_of()
    document["cluster"]["lease"][key] = "../kube-system"
    with pytest.raises(ValidationError, match=f"cluster.lease.{key}: '../kube-system' can't be a name"):
        Settings.model_validate(document)


@pytest.mark.parametrize(
    ("name", "lease"), [("Train_Ticket", "deepscaler-train-ticket"), ("a.b", "deepscaler-a.b")]
)
def test_what_can_be_made_a_name_is(name, lease):
    settings = Settings.model_validate(settings_of(name=name))
    assert settings.lease_name == LeaseElection(settings).name == lease


@pytest.mark.parametrize("name", HOSTILE[:3] + HOSTILE[6:])
def test_hostile_names_never_reach_the_path_of_a_request(name, tmp_path):
    api = KubeApi(make(NoServer(), tmp_path).cluster)
    for method in ("GET", "PATCH"):
        with pytest.raises(ApiError, match=r"is no name of a Kubernetes object; check app.namespace"):
            api.send(method, f"/api/v1/namespaces/{name}/pods", None)


class NoServer:
    """What `make` needs of a server; there is none, so that a request would fail in another way."""

    def kubeconfig(self, path, _token):
        path.write_text("")
        return str(path)
