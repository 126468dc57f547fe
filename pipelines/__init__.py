"""What runs elsewhere:

KFP components and pipelines, compiled to YAML. Imports nothing of ours and is imported by nobody.
"""
