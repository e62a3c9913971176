"""Where work runs, exactly once and bounded, on Dask. No physics."""
