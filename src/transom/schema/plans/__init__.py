"""The grammar of plans, part by part; `transom.schema.plan` has the whole."""
