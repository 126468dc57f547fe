"""One folder a component: plain functions, a thin `component.py` over them, and its compiled `component.yaml`."""
