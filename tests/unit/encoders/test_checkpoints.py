"""Local copies of language models: the real hub client against a small server, damaged and armed files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from transformers import BertConfig, BertForMaskedLM, BertModel, EsmConfig, EsmModel
from typer.testing import CliRunner

from enzyme_stability.cli.models import models
from enzyme_stability.encoders import checkpoints
from enzyme_stability.encoders.checkpoints import KNOWN_CHECKPOINTS, find_checkpoint, fingerprint, installed, pull
from enzyme_stability.encoders.checkpoints import models_folder as folder_of_models
from enzyme_stability.errors import ArtifactError

VOCABULARY = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"LAGVESIKRDTPNQFYMHCWXUBZO"]) + "\n"
FIRST, SECOND = "1" * 40, "2" * 40
REPOSITORY = "lab/tiny"
WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"


@dataclass
class Hub:
    """What the server has, what goes wrong, and what it was asked."""

    url: str = ""
    commits: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    status: dict[str, int] = field(default_factory=dict)  # answers to GET, by file
    refusal: str = ""  # error code for every question
    announced: dict[str, bytes] = field(default_factory=dict)  # content that the listing tells of, by file
    stalled: threading.Event | None = None  # files with weights stop halfway until it is set

    def publish(self, files: dict[str, bytes], repository: str = REPOSITORY, commit: str = FIRST) -> None:
        self.commits[repository, commit] = files
        self.branches[repository, "main"] = commit

    def downloads(self) -> list[str]:
        return sorted(Path(line).name for line in self.asked if line.startswith("GET") and "/resolve/" in line)


def answer(hub: Hub, path: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body for a question, as the hub puts them."""
    listing = re.fullmatch(r"/api/models/(.+?/.+?)/(revision|tree)/([^/]+)", path)
    file = re.fullmatch(r"/(.+?/.+?)/resolve/([^/]+)/(.+)", path)
    asked = listing or file
    if hub.refusal or not asked:
        return 403 if hub.refusal == "GatedRepo" else 404, {"X-Error-Code": hub.refusal or "RepoNotFound"}, b""
    repository, revision = asked[1], asked[3] if listing else asked[2]
    if not any(known == repository for known, _ in hub.commits):
        return 401, {"X-Error-Code": "RepoNotFound"}, b""
    commit = hub.branches.get((repository, revision), revision)
    files = hub.commits.get((repository, commit))
    if files is None:
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    if file:
        if file[3] not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        etag = hashlib.sha256(files[file[3]]).hexdigest()
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}, files[file[3]]
    entries = []
    for name, content in files.items():
        told = hub.announced.get(name, content)
        lfs = {"sha256": hashlib.sha256(told).hexdigest(), "size": len(told), "pointerSize": 134}
        large = {"lfs": lfs} if name.endswith((".bin", ".safetensors")) else {}
        entries.append({"rfilename": name, "size": len(told), "blobId": "0" * 40, **large})
    if asked[2] == "revision":
        body: object = {"id": repository, "sha": commit, "siblings": entries}
    else:
        body = [{"type": "file", "path": e["rfilename"], "size": e["size"], "oid": "0" * 40} for e in entries]
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder of models, and no network."""
    monkeypatch.setenv("ENZYME_STABILITY_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            state.asked.append(f"{self.command} {path}")
            state.tokens.add(self.headers.get("Authorization"))
            status, headers, body = answer(state, path)
            if self.command == "GET" and path.rpartition("/")[2] in state.status:
                status, body = state.status[path.rpartition("/")[2]], b""
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if state.stalled and path.endswith(WEIGHTS):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                state.stalled.wait(20)
                return
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name the server asks for

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        if state.stalled:
            state.stalled.set()
        httpd.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def bert() -> BertForMaskedLM:
    """Its output layer shares the weights of the embedding, as in ProtBert."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    return BertForMaskedLM(config).eval()


def configuration(model: torch.nn.Module) -> dict[str, bytes]:
    return {"config.json": model.config.to_json_string().encode(), "vocab.txt": VOCABULARY.encode()}


def as_safetensors(model: torch.nn.Module) -> dict[str, bytes]:
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return {**configuration(model), WEIGHTS: to_bytes(tensors, {"format": "pt"})}


def pickled(content: object, *, archive: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


def as_pickle(model: torch.nn.Module, *, archive: bool = True) -> dict[str, bytes]:
    return {**configuration(model), PICKLED: pickled(model.state_dict(), archive=archive)}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def embedding(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[2, 5, 6, 7, 8, 3]])).last_hidden_state


class Armed:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_pulled_model_is_the_published_one_and_nothing_else_is_fetched(hub: Hub, bert: BertForMaskedLM) -> None:
    files = as_safetensors(bert)
    others = dict.fromkeys(("modeling_tiny.py", "tf_model.h5", "flax_model.msgpack", "model.onnx", "README.md"), b"x")
    hub.publish({**files, **others, PICKLED: b"not needed beside safetensors"})
    folder = pull(REPOSITORY)
    assert folder == folder_of_models() / "lab--tiny"
    assert {path.name for path in folder.iterdir()} == {*files, "checkpoint.json"}
    assert hub.downloads() == sorted(files)
    assert torch.equal(embedding(BertModel.from_pretrained(folder).eval()), embedding(bert.bert))


def test_the_record_names_commit_and_checksums(hub: Hub, bert: BertForMaskedLM) -> None:
    files = as_safetensors(bert)
    hub.publish(files)
    record = json.loads((pull(REPOSITORY) / "checkpoint.json").read_text())
    assert (record["name"], record["repository"], record["commit"]) == ("lab--tiny", REPOSITORY, FIRST)
    expected = {name: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for name, c in files.items()}
    assert record["files"] == expected
    assert record["fingerprint"] == fingerprint(folder_of_models() / "lab--tiny")


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before PyTorch 1.6"])
def test_pickled_weights_are_kept_as_safetensors_with_the_same_numbers(
    hub: Hub, bert: BertForMaskedLM, archive: bool
) -> None:
    hub.publish(as_pickle(bert, archive=archive))
    folder = pull(REPOSITORY)
    assert {path.name for path in folder.iterdir()} == {"config.json", "vocab.txt", WEIGHTS, "checkpoint.json"}
    kept, published = load_file(folder / WEIGHTS), bert.state_dict()
    assert kept.keys() == published.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in published.items())
    assert torch.equal(embedding(BertModel.from_pretrained(folder).eval()), embedding(bert.bert))


def test_weights_in_several_pickled_files_stay_in_several(hub: Hub) -> None:
    esm = EsmModel(
        EsmConfig(vocab_size=33, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                  max_position_embeddings=64, pad_token_id=1, mask_token_id=32, position_embedding_type="rotary"),
        add_pooling_layer=False,
    ).eval()  # fmt: skip
    names = sorted(esm.state_dict())
    parts = {f"pytorch_model-0000{k + 1}-of-00002.bin": names[k::2] for k in range(2)}
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    shards = {file: pickled({name: esm.state_dict()[name] for name in part}) for file, part in parts.items()}
    hub.publish({**configuration(esm), **shards, f"{PICKLED}.index.json": json.dumps(index).encode()})
    folder = pull(REPOSITORY)
    assert not [path.name for path in folder.iterdir() if "pytorch" in path.name]
    assert torch.equal(embedding(EsmModel.from_pretrained(folder).eval()), embedding(esm))
    checkpoints.verify(folder)


def test_a_second_pull_asks_the_hub_nothing(hub: Hub, bert: BertForMaskedLM) -> None:
    hub.publish(as_safetensors(bert))
    folder = pull(REPOSITORY)
    hub.asked.clear()
    assert (pull(REPOSITORY), pull(REPOSITORY, revision=FIRST)) == (folder, folder)
    assert hub.asked == []


def test_a_copy_stays_at_its_commit_until_another_is_asked_for(hub: Hub, bert: BertForMaskedLM) -> None:
    hub.publish(as_safetensors(bert))
    before = fingerprint(pull(REPOSITORY))
    hub.publish({**as_safetensors(bert), "vocab.txt": b"changed\n"}, commit=SECOND)
    assert fingerprint(pull(REPOSITORY)) == before
    moved = pull(REPOSITORY, revision="main")
    assert fingerprint(moved) != before
    assert (moved / "vocab.txt").read_bytes() == b"changed\n"
    hub.asked.clear()
    pull(REPOSITORY, revision="main")
    assert hub.downloads() == []
    assert [path.name for path in folder_of_models().iterdir() if path.name.endswith(".part")] == []


def test_a_known_name_and_its_repository_mean_the_pinned_commit(hub: Hub, bert: BertForMaskedLM) -> None:
    known = KNOWN_CHECKPOINTS["prot_bert"]
    assert known.revision
    hub.publish(as_pickle(bert), known.repository, known.revision)
    hub.publish({}, known.repository, SECOND)
    folder = pull("prot_bert")
    assert folder == folder_of_models() / "prot_bert"
    assert pull(known.repository) == find_checkpoint(known.repository) == find_checkpoint("prot_bert") == folder
    assert json.loads((folder / "checkpoint.json").read_text())["licence"] == "AFL-3.0"


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    hub: Hub, bert: BertForMaskedLM, tmp_path: Path, archive: bool
) -> None:
    armed = pickled({**bert.state_dict(), "x": Armed(tmp_path / "it ran")}, archive=archive)
    hub.publish({**configuration(bert), PICKLED: armed})
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin was refused"):
        pull(REPOSITORY)
    assert not (tmp_path / "it ran").exists()
    assert installed() == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", pickled([1, 2]), pickled({"a": {"b": 1}})])
def test_a_damaged_pickle_is_refused(hub: Hub, bert: BertForMaskedLM, content: bytes) -> None:
    hub.publish({**configuration(bert), PICKLED: content})
    with pytest.raises(ArtifactError, match="was refused: it is damaged"):
        pull(REPOSITORY)


def test_weights_other_than_the_hub_announced_are_refused(hub: Hub, bert: BertForMaskedLM) -> None:
    files = as_safetensors(bert)
    hub.publish(files)
    hub.announced[WEIGHTS] = files[WEIGHTS][:-1] + bytes([files[WEIGHTS][-1] ^ 1])
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged: its SHA-256 is not \w{64}; .*announced"):
        pull(REPOSITORY)
    assert installed() == []
    hub.announced.clear()
    assert pull(REPOSITORY).is_dir()


def test_a_failed_download_leaves_nothing_that_passes_for_a_model(hub: Hub, bert: BertForMaskedLM) -> None:
    hub.publish(as_safetensors(bert))
    hub.status[WEIGHTS] = 500
    with pytest.raises(ArtifactError, match=f"{hub.url} answers 500 for lab/tiny; try again later, or copy config"):
        pull(REPOSITORY)
    with pytest.raises(ArtifactError, match="enzyme-stability models pull lab/tiny"):
        find_checkpoint(REPOSITORY)
    assert [(entry.name, entry.intact) for entry in installed()] == [("lab--tiny", False)]
    hub.status.clear()
    hub.asked.clear()
    checkpoints.verify(pull(REPOSITORY))
    assert hub.downloads() == [WEIGHTS]  # what had arrived was not fetched again
    assert [(entry.name, entry.intact) for entry in installed()] == [("lab--tiny", True)]


def test_a_killed_download_leaves_nothing_that_passes_for_a_model(hub: Hub, bert: BertForMaskedLM) -> None:
    hub.publish(as_safetensors(bert))
    hub.stalled = threading.Event()
    code = f"from enzyme_stability.encoders.checkpoints import pull; pull({REPOSITORY!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while WEIGHTS not in hub.downloads() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert WEIGHTS in hub.downloads()
    with pytest.raises(ArtifactError, match="not on this machine"):
        find_checkpoint(REPOSITORY)
    hub.stalled.set()
    hub.stalled = None
    checkpoints.verify(pull(REPOSITORY))


def test_two_pulls_at_once_fetch_the_weights_once(hub: Hub, bert: BertForMaskedLM) -> None:
    hub.publish(as_safetensors(bert))
    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(pull, [REPOSITORY, REPOSITORY]))
    assert len(folders) == 1
    assert hub.downloads().count(WEIGHTS) == 1


def test_verify_names_the_damaged_file_and_pull_replaces_it(hub: Hub, bert: BertForMaskedLM) -> None:
    files = as_safetensors(bert)
    hub.publish(files)
    folder = pull(REPOSITORY)
    checkpoints.verify(folder)
    (folder / WEIGHTS).write_bytes(files[WEIGHTS][:-1] + bytes([files[WEIGHTS][-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged: .*models pull lab/tiny"):
        checkpoints.verify(folder)
    pull(REPOSITORY)
    checkpoints.verify(folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(ArtifactError, match=r"vocab\.txt is missing; fetch it again with: .*models pull lab/tiny"):
        checkpoints.verify(folder)
    with pytest.raises(ArtifactError, match=r"vocab\.txt is missing"):
        find_checkpoint(REPOSITORY)
    pull(REPOSITORY)
    (folder / "checkpoint.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"checkpoint\.json is damaged"):
        checkpoints.verify(folder)
    pull(REPOSITORY)
    checkpoints.verify(find_checkpoint(REPOSITORY))


@pytest.mark.parametrize(
    ("refusal", "revision", "message"),
    [
        ("RepoNotFound", None, "has no repository lab/tiny; for a private one set HF_TOKEN"),
        ("GatedRepo", None, "asks for consent: accept its terms at .*/lab/tiny, then set HF_TOKEN"),
        ("", "v9", "has no revision v9"),
        ("", None, "has no config.json with weights"),
    ],
)
def test_a_refusal_of_the_hub_is_one_sentence(hub: Hub, refusal: str, revision: str | None, message: str) -> None:
    hub.publish({"README.md": b"nothing else"})
    hub.refusal = refusal
    with pytest.raises(ArtifactError, match=message) as caught:
        pull(REPOSITORY, revision=revision)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("hub")
def test_a_misspelt_repository_is_corrected() -> None:
    with pytest.raises(ArtifactError, match=r"did you mean prot_bert\?"):
        pull("Rostlab/prot_bret")


def test_without_a_network_the_message_says_what_to_set_and_where_to_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://somebody:password@127.0.0.1:1")
    with pytest.raises(ArtifactError) as caught:
        pull("esm2_8m")
    message = str(caught.value)
    for part in ("http://127.0.0.1:1 ", "HTTPS_PROXY", "HF_ENDPOINT", str(tmp_path / "models" / "esm2_8m")):
        assert part in message
    assert "password" not in message
    assert "\n" not in message


def test_offline_mode_is_one_sentence(hub: Hub, bert: BertForMaskedLM) -> None:
    hub.publish(as_safetensors(bert))
    code = """
from enzyme_stability.encoders.checkpoints import pull
from enzyme_stability.errors import ArtifactError
try:
    pull("lab/tiny")
except ArtifactError as error:
    print(error)
"""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"HF_HUB_OFFLINE forbids to fetch lab/tiny; unset it, or copy .* to .*lab--tiny\n", done.stdout)
    assert hub.asked == []


def test_the_token_is_sent_and_never_shown(
    hub: Hub, bert: BertForMaskedLM, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.publish(as_safetensors(bert))
    hub.status[WEIGHTS] = 500
    with pytest.raises(ArtifactError) as caught:
        pull(REPOSITORY, report=print)
    assert hub.tokens == {"Bearer hf_secret"}
    assert "hf_secret" not in "".join([str(caught.value), *capfd.readouterr()])


def test_a_folder_that_cannot_be_written_is_one_sentence(
    hub: Hub, bert: BertForMaskedLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish(as_safetensors(bert))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ENZYME_STABILITY_MODELS", str(tmp_path / "file"))
    with pytest.raises(ArtifactError, match=r"cannot keep models in .*/file: .* ENZYME_STABILITY_MODELS"):
        pull(REPOSITORY)
    folder = put(tmp_path / "mine", as_safetensors(bert))
    assert len(fingerprint(folder)) == 64  # needs no place to remember
    with pytest.raises(ArtifactError, match="cannot be read"):
        installed()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("esm2_650M", r"no model 'esm2_650M' \(did you mean esm2_650m\?\)"),
        ("protbert", r"did you mean prot_bert\?"),
        ("esm2_t6_8M_UR50", r"did you mean esm2_8m\?"),
        ("prot_bert", "the model prot_bert is not on this machine; .*: enzyme-stability models pull prot_bert$"),
        ("facebook/esm2_t6_8M_UR50D", "enzyme-stability models pull esm2_8m$"),
        ("../somewhere", r"no model '\.\./somewhere'; give one of prot_bert, .* or a folder with config\.json"),
        ("", "no model ''|has no config"),
    ],
)
def test_a_model_that_is_not_there_says_how_to_get_it(hub: Hub, name: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        find_checkpoint(name)
    assert hub.asked == []


def test_a_folder_is_used_where_it_is(bert: BertForMaskedLM, tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", as_safetensors(bert))
    assert find_checkpoint(folder) == find_checkpoint(str(folder)) == folder
    by_hand = put(folder_of_models() / "esm2_8m", as_safetensors(bert))
    assert find_checkpoint("esm2_8m") == by_hand
    assert fingerprint(by_hand) == fingerprint(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=f"{folder} holds no model: it lacks config.json or the weights"):
        find_checkpoint(folder)
    (folder / f"{WEIGHTS}.index.json").write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    with pytest.raises(ArtifactError, match=r"lacks a part of the weights: model-00001-of-00001\.safetensors"):
        find_checkpoint(folder)
    with pytest.raises(ArtifactError, match=r"it has no config\.json"):
        find_checkpoint(tmp_path)


def test_a_folder_with_pickled_weights_is_copied_and_left_as_it_is(bert: BertForMaskedLM, tmp_path: Path) -> None:
    files = as_pickle(bert)
    folder = put(tmp_path / "mine", files)
    copy = find_checkpoint(folder)
    assert re.fullmatch(r"local--mine--[0-9a-f]{12}", copy.name)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert torch.equal(embedding(BertModel.from_pretrained(copy).eval()), embedding(bert.bert))
    checkpoints.verify(copy)
    written = (copy / WEIGHTS).stat().st_mtime_ns
    assert find_checkpoint(folder) == copy
    assert (copy / WEIGHTS).stat().st_mtime_ns == written
    (folder / "vocab.txt").write_text("changed\n")
    assert find_checkpoint(folder) != copy


def test_an_armed_folder_is_refused_and_does_not_run(bert: BertForMaskedLM, tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", {**configuration(bert), PICKLED: pickled({"x": Armed(tmp_path / "it ran")})})
    with pytest.raises(ArtifactError, match="was refused"):
        find_checkpoint(folder)
    assert not (tmp_path / "it ran").exists()
    assert installed() == []


def test_the_fingerprint_is_that_of_the_content(bert: BertForMaskedLM, tmp_path: Path) -> None:
    files = as_safetensors(bert)
    one, other = put(tmp_path / "one", files), put(tmp_path / "other", {**files, "README.md": b"not the model"})
    before = fingerprint(one)
    assert fingerprint(other) == before
    (other / "config.json").write_bytes(files["config.json"] + b" ")
    assert fingerprint(other) != before


def test_unchanged_weights_are_not_read_twice(bert: BertForMaskedLM, tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", as_safetensors(bert))
    before, state = fingerprint(folder), (folder / WEIGHTS).stat()
    (folder / WEIGHTS).write_bytes(bytes(state.st_size))
    os.utime(folder / WEIGHTS, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert fingerprint(folder) == before  # same size and time: the remembered checksum is taken
    os.utime(folder / WEIGHTS, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert fingerprint(folder) != before


@pytest.mark.parametrize("memory", ["", "[1]", "{}", '{"x": 1}', "\ud800"])
def test_a_damaged_memory_of_checksums_does_no_harm(bert: BertForMaskedLM, tmp_path: Path, memory: str) -> None:
    folder = put(tmp_path / "mine", as_safetensors(bert))
    before = fingerprint(folder)
    (folder_of_models() / ".checksums.json").write_bytes(memory.encode(errors="surrogatepass"))
    assert fingerprint(folder) == before
    assert str(folder / WEIGHTS) in (folder_of_models() / ".checksums.json").read_text()


def test_models_are_kept_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENZYME_STABILITY_MODELS", "/elsewhere")
    assert folder_of_models() == Path("/elsewhere")
    monkeypatch.delenv("ENZYME_STABILITY_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert folder_of_models() == Path("/cache/enzyme-stability/models")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folder_of_models() == Path.home() / ".cache" / "enzyme-stability" / "models"


def test_the_commands_pull_list_verify_and_remove(hub: Hub, bert: BertForMaskedLM) -> None:
    run = CliRunner()
    known = KNOWN_CHECKPOINTS["esm2_8m"]
    hub.publish(as_safetensors(bert), known.repository, str(known.revision))
    hub.publish(as_safetensors(bert))
    for name in ("esm2_8m", REPOSITORY):
        assert run.invoke(models, ["pull", name], catch_exceptions=False).exit_code == 0
    listed = run.invoke(models, ["list"], catch_exceptions=False).stdout.splitlines()
    rows = {line.split()[0]: line.split() for line in listed}
    assert {len(row) for row in rows.values()} == {6}
    assert rows.keys() == {"name", "lab--tiny", *KNOWN_CHECKPOINTS}
    assert rows["esm2_8m"][:-1] == ["esm2_8m", known.repository, "7M", "31MB", "MIT"]
    kept = sum(path.stat().st_size for path in (folder_of_models() / "esm2_8m").iterdir())
    assert rows["esm2_8m"][-1] == f"{kept / 1e6:.3g}MB"
    assert rows["esm2_3b"][-1] == "-"
    assert "is intact" in run.invoke(models, ["verify", "esm2_8m"], catch_exceptions=False).output
    (folder_of_models() / "esm2_8m" / "vocab.txt").write_text("damaged")
    assert isinstance(run.invoke(models, ["verify", "esm2_8m"]).exception, ArtifactError)
    for name in ("esm2_8m", "lab--tiny"):
        assert run.invoke(models, ["remove", name], catch_exceptions=False).exit_code == 0
    assert installed() == []
    assert isinstance(run.invoke(models, ["remove", "esm2_8m"]).exception, ArtifactError)


def test_removing_a_linked_model_leaves_what_the_link_leads_to(bert: BertForMaskedLM, tmp_path: Path) -> None:
    shared = put(tmp_path / "shared", as_safetensors(bert))
    folder_of_models().mkdir()
    (folder_of_models() / "esm2_8m").symlink_to(shared)
    assert find_checkpoint("esm2_8m").samefile(shared)
    checkpoints.remove("esm2_8m")
    assert not (folder_of_models() / "esm2_8m").exists()
    assert (shared / WEIGHTS).is_file()


def test_every_known_model_is_pinned_to_a_commit() -> None:
    for name, known in KNOWN_CHECKPOINTS.items():
        assert known.name == name
        assert re.fullmatch(r"[0-9a-f]{40}", known.revision or "")
    assert len({known.revision for known in KNOWN_CHECKPOINTS.values()}) == len(KNOWN_CHECKPOINTS)


def test_the_page_lists_the_known_models() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in page.splitlines() if "|" in line]
    listed = {row[0]: row[1:] for row in rows if row[0] in KNOWN_CHECKPOINTS}
    assert listed.keys() == KNOWN_CHECKPOINTS.keys()
    for known in KNOWN_CHECKPOINTS.values():
        repository, parameters, size, width, licence = listed[known.name]
        count = known.download_bytes
        assert repository.startswith(f"[{known.repository}](")
        assert parameters == f"{known.parameters / 1e6:.0f} M"
        assert size == (f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB")
        assert (int(width), licence) == (known.width, known.licence)
