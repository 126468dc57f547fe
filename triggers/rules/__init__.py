"""Rules: from an event to a decision. `load` makes a RuleSet; `match`, `plan` and `decide` put events to it."""
