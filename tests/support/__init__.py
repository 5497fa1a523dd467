"""What tests of several rooms share: tiny models of the host and what feeds them, golden data, files of every kind."""
