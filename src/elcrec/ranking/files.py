"""Names of the files by which a model is pushed with its rules, what the shop knew of its items, and new items."""

RULES = "rules.json"
FACTS = "item_facts.parquet"
NEW_ITEMS = "new_items.parquet"
