"""The virtual cluster: the emulated application behind the cluster port."""
