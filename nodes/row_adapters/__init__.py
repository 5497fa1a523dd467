"""Several LoRAs in one batch, each on its own rows; concepts that need weights of their own."""
