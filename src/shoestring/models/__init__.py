"""Models: small configurations, loading and saving by name or folder, surgery."""
