"""Names of the files that a model is pushed with: rules, what the shop knew of its items, new items, its search."""

RULES = "rules.json"
FACTS = "item_facts.parquet"
NEW_ITEMS = "new_items.parquet"
SEARCH = "search.json"
