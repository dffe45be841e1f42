"""Plant models: what stands behind a simulated controller and a recipe test."""
