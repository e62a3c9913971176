"""Constants and how they are made: validity, payloads, conditions, calibrations. No Dask, no event files."""
