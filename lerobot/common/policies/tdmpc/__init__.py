"""TD-MPC: planning in a learned latent world model."""
