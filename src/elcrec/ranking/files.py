"""Names of the files that are stored with a model: rules, items file, new items, search."""

RULES = "rules.json"
FACTS = "item_facts.parquet"
NEW_ITEMS = "new_items.parquet"
SEARCH = "search.json"
