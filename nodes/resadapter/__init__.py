"""ResAdapter: any picture size, by a small change of the weights; ResAdapter Resolution, export."""
