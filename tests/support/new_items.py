"""New items for the small inputs of a push."""

import pyarrow as pa

from elcrec.artifacts import write_json
from elcrec.config import RulesConfig, to_dict
from elcrec.model.io import load_model
from elcrec.ranking.new_items import NewItems, write_new_items
from tests.support.push_inputs import Inputs

TWINS = {"new-1": 3, "new-2": 5, "item-9": 7}
"""New items, of which the model has a row for one, and the trained item whose vector each has."""


def add_new_items(inputs: Inputs, rules: RulesConfig | None = None) -> Inputs:
    vectors = load_model(inputs.model).item_vectors().numpy()[list(TWINS.values())]
    sources = pa.array(["co_seen", "text", "co_seen"])
    write_new_items(NewItems(item_ids=pa.array(TWINS), vectors_WD=vectors, sources=sources), inputs.evaluation)
    write_json(inputs.evaluation / "rules.json", {"schema_version": 1, "rules": to_dict(rules or RulesConfig())})
    return inputs
