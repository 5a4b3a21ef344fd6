"""Renders the part of kustomize that deploy/ uses, so that its manifests can be tested where kubectl isn't.

Resources, components, strategic-merge and JSON 6902 patches, ConfigMaps from literals, images, namespace.
Anything else is refused. `tests/test_deploy.py` compares it with `kubectl kustomize` where that is there.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
KNOWN = {
    *("apiVersion", "kind", "resources", "components", "patches"),
    *("configMapGenerator", "images", "namespace"),
}
MERGE_KEYS = {
    **dict.fromkeys(("containers", "initContainers", "volumes", "env"), "name"),
    "volumeMounts": "mountPath",
}
CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding"}


def render(directory: Path) -> list[Object]:
    """The objects that `kubectl kustomize <directory>` prints, in some order."""
    objects = _built(directory, [])
    renamed = {
        item["metadata"]["name"]: item["metadata"]["name"] + _suffix(item)
        for item in objects
        if item.pop("_generated", False)
    }
    for item in objects:
        if item["kind"] == "ConfigMap":
            item["metadata"]["name"] = renamed.get(item["metadata"]["name"], item["metadata"]["name"])
        else:
            _rename(item, renamed)
    return objects


def _built(directory: Path, objects: list[Object]) -> list[Object]:
    """`objects` and those of a directory, as its kustomization changes them."""
    file = directory / "kustomization.yaml"
    plan = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert set(plan) <= KNOWN, f"{file}: {set(plan) - KNOWN} isn't rendered here"
    objects = list(objects)
    for name in plan.get("resources", ()):
        path = directory / name
        objects += _built(path, []) if path.is_dir() else list(yaml.safe_load_all(path.read_text("utf-8")))
    for name in plan.get("components", ()):
        objects = _built(directory / name, objects)
    objects += [_config_map(item) for item in plan.get("configMapGenerator", ())]
    for patch in plan.get("patches", ()):
        text = patch["patch"] if "patch" in patch else (directory / patch["path"]).read_text("utf-8")
        for one in yaml.safe_load_all(text):
            _patch(objects, one, patch.get("target"))
    for item in objects:
        if "namespace" in plan and item["kind"] not in CLUSTER_WIDE:
            item["metadata"]["namespace"] = plan["namespace"]
        for image in plan.get("images", ()):
            _retag(item, image)
    return objects


# ------------------------------------------------------------------------------------------------- generators
def _config_map(plan: Object) -> Object:
    data = dict(literal.split("=", 1) for literal in plan["literals"])
    metadata = {name: plan[name] for name in ("name", "namespace") if name in plan}
    return {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, "_generated": True,
    }  # fmt: skip


def _suffix(item: Object) -> str:
    """Ten characters of the content's hash. Source: kustomize's hasher."""
    content = {"data": item["data"], "kind": "ConfigMap", "name": ""}
    digest = hashlib.sha256(json.dumps(content, separators=(",", ":"), sort_keys=True).encode()).hexdigest()
    return "-" + digest[:10].translate(str.maketrans("013ae", "ghkmt"))


def _rename(value: Any, renamed: dict[str, str]) -> None:
    """Let references to ConfigMaps follow their new names."""
    if isinstance(value, list):
        for item in value:
            _rename(item, renamed)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("configMapKeyRef", "configMapRef", "configMap"):
                item["name"] = renamed.get(item["name"], item["name"])
            _rename(item, renamed)


def _retag(value: Any, image: Object) -> None:
    if isinstance(value, list):
        for item in value:
            _retag(item, image)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "image" and isinstance(item, str) and item.rpartition(":")[0] == image["name"]:
                value[key] = f"{image['newName']}:{image['newTag']}"
            _retag(item, image)


# ---------------------------------------------------------------------------------------------------- patches
def _patch(objects: list[Object], patch: Any, target: Object | None) -> None:
    steps = patch if isinstance(patch, list) else [patch] if "op" in patch else None
    if steps is None:
        wanted = {"kind": patch["kind"], **patch["metadata"]}
    else:
        assert target is not None, "a JSON 6902 patch needs a target"
        wanted = target
    found = [item for item in objects if _fits(item, wanted)]
    assert found, f"a patch fits nothing: {wanted}"
    for item in found:
        if steps is None:
            item.update(_merged(item, patch, ""))
        else:
            for step in steps:
                _apply(item, step)


def _fits(item: Object, wanted: Object) -> bool:
    known = {"kind": item["kind"], **item["metadata"]}
    return all(known.get(key) == wanted[key] for key in ("kind", "name", "namespace") if key in wanted)


def _merged(old: Any, new: Any, field: str) -> Any:
    """`old` as a strategic merge patch changes it."""
    if isinstance(old, dict) and isinstance(new, dict):
        out = {key: copy.deepcopy(value) for key, value in old.items() if new.get(key, 0) is not None}
        return out | {
            key: _merged(old.get(key), value, key) for key, value in new.items() if value is not None
        }
    if isinstance(new, list) and field in MERGE_KEYS:
        key, out = MERGE_KEYS[field], list(old or [])
        for item in new:
            places = [place for place, other in enumerate(out) if other[key] == item[key]]
            if places:
                out[places[0]] = _merged(out[places[0]], item, "")
            else:
                out.append(item)
        return out
    return copy.deepcopy(new)


def _apply(item: Object, step: Object) -> None:
    *parents, last = step["path"].removeprefix("/").split("/")
    place: Any = item
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    key = int(last) if isinstance(place, list) and last != "-" else last
    if step["op"] == "test":
        assert place[key] == step["value"], f"{step['path']}: {place[key]!r} isn't {step['value']!r}"
    elif step["op"] == "add" and last == "-":
        place.append(step["value"])
    elif step["op"] == "remove":
        del place[key]
    else:
        assert step["op"] == "replace", f"{step['op']} isn't rendered here"
        place[key] = step["value"]
