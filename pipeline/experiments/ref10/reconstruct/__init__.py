"""Reconstruction of REF10, stage by stage, each a pure function of columns and conditions."""
