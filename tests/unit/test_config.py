import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from elcrec import config as schema
from elcrec.config import Config, Section, load_config, merge, parse_config, read_mapping, to_dict
from elcrec.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIG = Path(schema.__file__).parent
PARAMS = ROOT / "params.yaml"


@pytest.mark.parametrize("preset", [None, *sorted((ROOT / "presets").glob("*.yaml"))], ids=str)
def test_params_and_every_preset_fit_the_schema(preset: Path | None) -> None:
    # Presets of data sets lie over the paper's.
    config = load_config(PARAMS, presets=[ROOT / "presets" / "paper.yaml", preset] if preset else [])
    assert parse_config(to_dict(config)) == config


def test_a_preset_overrides_params_and_an_override_both() -> None:
    config = load_config(
        PARAMS,
        presets=[ROOT / "presets/paper.yaml", ROOT / "presets/beauty.yaml"],
        overrides=["train.learning_rate=1e-2"],
    )
    assert (config.fetch.dataset, config.train.intents.num_intents, config.train.learning_rate) == ("beauty", 256, 0.01)
    assert config.fetch.sources["beauty"].md5 == "cb03635343187f36526ed4ba48102b53"


CHAINS = [
    ("paper", name, *more)
    for name in ("beauty", "sports", "toys", "yelp")
    for more in ((), ("best", f"best-{name}"), ("cl4srec",))
]


@pytest.mark.parametrize("names", CHAINS, ids="-".join)
def test_what_a_benchmark_is_trained_with_does_not_depend_on_params(names: tuple[str, ...]) -> None:
    """They lie over params.yaml, whose values for the sample must not get into a reproduction."""
    files = [path for name in names if (path := ROOT / "presets" / f"{name}.yaml").is_file()]
    trained = []
    for document in (read_mapping(PARAMS), {"fetch": read_mapping(PARAMS)["fetch"]}):
        merged = document
        for file in files:
            merged = merge(merged, read_mapping(file))
        train = parse_config(merged).train
        if train.encoder.branch is None:  # a share of nothing
            train = msgspec.structs.replace(train, encoder=msgspec.structs.replace(train.encoder, branch_share=None))
        trained.append(train)
    assert trained[0] == trained[1]


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("train.epochs=0", "train.epochs"),
        ("train.epochs=many", "train.epochs"),
        ("train.epoch=5", "epoch"),
        ("trian.epochs=5", "trian"),
        ("train.encoder.num_heads=3", "train.encoder"),
        ("train.encoder.window=1025", "train.encoder.window"),
        ("train.encoder.window=51", "train.encoder.window 51 is more than sequences.history 50"),
        ("sequences.history=49", "train.encoder.window 50 is more than sequences.history 49"),
        ("train.padding=encoded", "differences would be taken from padding"),
        ("train.eval_every=16", "eval_every 16 is more than patience 8"),
        ("train.item_updates=lazy train.next_item.loss=softmax", "item_updates lazy needs a loss that draws items"),
        ("train.item_updates=lazy train.next_item.loss=bce train.compile=true", "compile needs item_updates dense"),
        ("train.next_item.loss=bce train.next_item.robustness=0.2", "robustness needs next_item.loss softmax"),
        ("evaluate.new_items.sources=[text]", "text is read from evaluate.items_file"),
        ("evaluate.new_items.sources=[co_seen, co_seen]", "names one twice"),
        ("evaluate.new_items.log=events.parquet", "new_items.log is an option of the source co_seen"),
        ("evaluate.new_items.text_model=folder", "new_items.text_model is an option of the source text"),
        ("evaluate.rules.new_items.cap=1", "rules.new_items applies to no item"),
        ("train.intents.fusion=glue", "train.intents.fusion"),
        ("fetch.dataset=nowhere", "nowhere"),
        ("push.gate.floors.ndcg@20=2", "floors: ndcg@20 is 1 at most, so no model could reach 2"),
        ("fetch.sources.beauty.md5=abc", "fetch.sources"),
        ("train.epochs", "section.key=value"),
        ("train=[1, 2", "YAML"),
        ("train.learning_rate=.inf", "train.learning_rate: inf is not a finite number"),
        ("train.learning_rate=.nan", "train.learning_rate: nan is not a finite number"),
        ("push.gate.floors.ndcg@20=-.inf", "push.gate.floors.ndcg@20: -inf is not a finite number"),
        ("train.seed=18446744073709551616", "train.seed: 18446744073709551616 is beyond 64 bits"),
        ("train.seed=" + "9" * 5000, "a value that cannot be read"),
        ("fetch.file.path=2026-01-01", "fetch.file.path: 2026-01-01 is a date"),
        ("fetch.file.path=2026-13-01", "a value that cannot be read"),
        ("push.model_name=../../etc", "push.model_name"),
        ("push.model_name=a..b", "push.model_name"),
        ('push.model_name="elcrec\\n"', "push.model_name: 'elcrec\\n' holds the control character"),
        ("fetch.sources={../x: {url: u, md5: " + "a" * 32 + "}}", "fetch.sources"),
        ("fetch.sources.beauty.mirror_name=../x", "fetch.sources"),
        ("train.seed=!!python/object/apply:os.getcwd []", "tag:yaml.org,2002:python/object/apply:os.getcwd"),
        ("train.seed=!!int ''", "tag:yaml.org,2002:int"),
        ("evaluate.search.kind=hnsw", "evaluate.search.kind"),
        ("push.alias=winner", "push.alias"),
        ("serve.challenger.mode=both", "serve.challenger.mode"),
        ("serve.alias=challenger serve.challenger.mode=split", "serve: alias challenger serves only the challenger"),
        ("serve.challenger.share=1", "serve.challenger.share"),
        ("serve.challenger.sample=0", "serve.challenger.sample"),
        ("promote.metric=revenue", "promote.metric"),
        ("promote.guards.ctr=0", "promote.guards"),
        ("promote.false_alarms=0", "promote.false_alarms"),
        ("promote.since='2026-02-30'", "promote"),
        (
            "evaluate.search.probes=8",
            "search.probes and search.oversampling are options of search.kind=approximate only",
        ),
        ("evaluate.search.kind=approximate evaluate.search.oversampling=0", "evaluate.search.oversampling"),
        ("engine.spill=s3a://bucket/work", "engine: spill is a folder, or with Spark s3://BUCKET/FOLDER"),
        ("engine.spill=s3://bucket//work", "engine: spill is a folder, or with Spark s3://BUCKET/FOLDER"),
        ("engine.spill=s3://bucket/work", "engine: a bucket as spill is an option of Spark"),
        ("train={1: 2}", "train: the key 1 is not plain text"),
        ("train=&a [*a]", "nested too deeply"),
        ("train=" + "[" * 3000, "nested too deeply"),
    ],
)
def test_a_wrong_parameter_is_named_in_one_line(override: str, path: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(PARAMS, overrides=re.split(r" (?=\w+\.)", override))
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"- a\n- b\n", b"\xff\xfe\x00", b"a: [\n"])
def test_params_that_are_no_mapping_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"params\.yaml"):
        load_config(path)


def _sections(kind: type[Section] = Config) -> Iterator[type[Section]]:
    yield kind
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            yield from _sections(field.type)
    if kind is schema.FetchConfig:
        yield schema.RemoteFile


def test_every_option_is_read_somewhere_in_the_product() -> None:
    files = [path for path in (ROOT / "src").rglob("*.py") if path.parent != CONFIG]
    names = {
        node.attr for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
    }
    options = {name for section in _sections() for name in section.__struct_fields__}
    assert options - names == set(), "options that are accepted and ignored"


def test_every_option_is_documented_under_its_field() -> None:
    sections = [node for path in CONFIG.glob("*.py") for node in ast.parse(path.read_text()).body]
    sections = [node for node in sections if isinstance(node, ast.ClassDef)]
    assert len(sections) > 20
    for node in sections:
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                assert isinstance(after, ast.Expr), f"{node.name}.{ast.unparse(field.target)} has no docstring"
