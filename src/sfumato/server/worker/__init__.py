"""The process that holds models and draws: one a device."""
