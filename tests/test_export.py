"""A model exported as config.json and safetensors is the model, from a folder or from a hub."""

import json
import stat
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants

from morph import Morph, load_checkpoint
from morph.data.module import MixtureDataModule
from morph.resume import check_resume
from tests.published_files import save
from tests.test_reference import MANIFEST, stored

HEADS = {"heads": 4, "heads_xa": 8}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return save(tmp_path / "patch4.pth", stored("patch4")[1])


@pytest.fixture
def export(call: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    return partial(call, "morph.export", "config={heads: 4, heads_xa: 8}", cwd=tmp_path)


@pytest.mark.parametrize("shard_size", ["5GB", "200KB"])
def test_an_export_is_the_model_bit_for_bit(export: Any, published: Path, tmp_path: Path, shard_size: str) -> None:
    done = export(f"checkpoint={published}", "out=small", f"shard_size={shard_size}")
    assert done.returncode == 0, done.stderr
    assert "0.09 M parameters" in done.stdout
    assert 'Morph.from_pretrained("small")' in done.stdout
    names = {path.name for path in (tmp_path / "small").iterdir()}
    whole = {"config.json", "model.safetensors"}
    parts = {"config.json", "model.safetensors.index.json", *(f"model-0000{i}-of-00002.safetensors" for i in (1, 2))}
    assert names == (whole if shard_size == "5GB" else parts)
    assert len({stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "small").iterdir()}) == 1
    expected = load_checkpoint(published, config=HEADS)
    x = stored("patch4")[0]["case/2d_ar3/input"]
    for model in (Morph.from_pretrained(tmp_path / "small"), load_checkpoint(tmp_path / "small")):
        assert not model.training
        assert model.config == expected.config
        assert torch.equal(model(x), expected(x))
    changed = Morph.from_pretrained(tmp_path / "small", normalisation="context")
    assert changed.config == {**expected.config, "normalisation": "context"}


def test_an_export_is_replaced_when_asked_to(export: Any, published: Path, tmp_path: Path) -> None:
    assert export(f"checkpoint={published}", "out=a", "shard_size=200KB").returncode == 0
    (tmp_path / "a" / "README.md").write_text("mine")
    refused = export(f"checkpoint={published}", "out=a")
    assert refused.returncode == 1
    assert "overwrite=true" in refused.stderr
    assert export(f"checkpoint={published}", "out=a", "overwrite=true").returncode == 0
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    wrong = export(f"checkpoint={published}", "out=b", "shard_size=big")
    assert wrong.returncode == 1
    assert "shard_size: expected a size such as 5GB" in wrong.stderr
    assert not (tmp_path / "b" / "config.json").exists()


def test_an_adapter_is_merged(export: Any, tmp_path: Path) -> None:
    tensors, state = stored("lora")
    done = export(f"checkpoint={save(tmp_path / 'lora.pth', state)}", "out=merged")
    assert "its adapter merged into the weights" in done.stdout
    model = Morph.from_pretrained(tmp_path / "merged")
    for case in MANIFEST["lora"]["cases"]:
        expected = tensors[f"case/{case}/output"]
        with torch.no_grad():
            assert (model(tensors[f"case/{case}/input"]) - expected).abs().max() < 1e-5 * expected.abs().max()
    with pytest.raises(ValueError, match="merge it first"):
        load_checkpoint(tmp_path / "lora.pth", config=HEADS).save_pretrained(tmp_path / "unmerged")


def test_a_model_saves_itself(tmp_path: Path) -> None:
    model = Morph(dim=32, depth=1, field_heads=8, patch_size=4, base="linear").eval()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == model.config
    again = Morph.from_pretrained(str(tmp_path))
    x = torch.randn(1, 4, 2, 1, 1, 1, 16)
    assert torch.equal(model(x), again(x))


def test_damaged_exports_name_the_file(export: Any, published: Path, tmp_path: Path) -> None:
    assert export(f"checkpoint={published}", "out=small", "shard_size=200KB").returncode == 0
    folder = tmp_path / "small"
    part = folder / "model-00002-of-00002.safetensors"
    content = part.read_bytes()
    part.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=f"{part} .* is truncated"):
        load_checkpoint(folder)
    part.unlink()
    with pytest.raises(ValueError, match=f"there is no {part}"):
        Morph.from_pretrained(folder)
    part.write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "patch_size": 8}))
    with pytest.raises(ValueError, match=r"decoder\.linear\.bias.*\[576\].*\[4608\]"):
        load_checkpoint(folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"not that of a Morph: .* found model_type"):
        Morph.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"config\.json is not that of a model: it lacks capacity, dim, mixer"):
        load_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"there is no .*config\.json"):
        load_checkpoint(folder)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a download asks for: one repository at one commit."""

    commit = "0123456789abcdef0123456789abcdef01234567"
    folder: Path

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/someone/small/tree/"):
            files = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": sha1(p.read_bytes()).hexdigest()}
                for p in self.folder.iterdir()
            ]
            self.reply(json.dumps(files).encode(), "application/json")
        elif path.startswith("/api/models/someone/small"):
            self.reply(json.dumps({"id": "someone/small", "sha": self.commit}).encode(), "application/json")
        elif path.startswith("/someone/small/resolve/") and (self.folder / Path(path).name).is_file():
            self.reply((self.folder / Path(path).name).read_bytes(), "application/octet-stream")
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def reply(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", f'"{sha1(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the repository someone/small."""
    folder = tmp_path / "repository"
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("LocalHub", (Hub,), {"folder": folder}))
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("shard_size", ["5GB", "200KB"])
def test_a_hub_serves_it(export: Any, published: Path, tmp_path: Path, hub: Path, shard_size: str) -> None:
    assert export(f"checkpoint={published}", f"out={hub}", f"shard_size={shard_size}").returncode == 0
    (hub / "weights.pth").write_bytes(b"never fetched")
    model = Morph.from_pretrained("someone/small", cache_dir=tmp_path / "cache")
    x = stored("patch4")[0]["case/1d/input"]
    assert torch.equal(model(x), load_checkpoint(published, config=HEADS)(x))
    assert not list((tmp_path / "cache").rglob("*.pth"))
    for path in hub.iterdir():
        path.unlink()
    again = Morph.from_pretrained("someone/small", cache_dir=tmp_path / "cache", local_files_only=True)
    assert torch.equal(model(x), again(x))


def test_published_models_are_judged_on_data_that_is_named(
    call: Any, export: Any, published: Path, tmp_path: Path
) -> None:
    assert export(f"checkpoint={published}", "out=small").returncode == 0
    lost = call("morph.evaluate", "checkpoint=small", cwd=tmp_path)
    assert lost.returncode == 1
    assert "data: small does not say what it was trained on; give the data, such as data=[cfd1d]" in lost.stderr
    (tmp_path / "waves.yaml").write_text(yaml.safe_dump({"_target_": "tests.made_up.Waves"}))
    judge = partial(call, "morph.evaluate", "checkpoint=small", "data=waves.yaml", "figures=false", cwd=tmp_path)
    done = judge("run_dir=judged")
    assert done.returncode == 0, done.stderr
    assert "normalisation=context: a published model expects normalised frames" in done.stdout
    assert yaml.safe_load((tmp_path / "judged" / "evaluate.yaml").read_text())["normalisation"] == "context"
    plain = judge("normalisation=none", "run_dir=plain")
    assert plain.returncode == 0, plain.stderr
    assert "normalised frames" not in plain.stdout
    with pytest.raises(ValueError, match="small is an exported or published model, which has no run to continue"):
        check_resume(tmp_path / "small", load_checkpoint(tmp_path / "small"), MixtureDataModule({}))
    wrong = judge("normalisation=mean", "run_dir=wrong")
    assert wrong.returncode == 1
    assert "expected one of context, dataset, none, found 'mean'" in wrong.stderr


def test_help(call: Any, tmp_path: Path) -> None:
    shown = call("morph.export", "--help", cwd=tmp_path)
    assert "python -m morph.export checkpoint=" in shown.stdout
    assert "shard_size: 5GB" in shown.stdout
