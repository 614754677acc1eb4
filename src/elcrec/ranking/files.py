"""Names of the files by which a model is pushed with its rules and with what the shop knew of its items."""

RULES = "rules.json"
FACTS = "item_facts.parquet"
