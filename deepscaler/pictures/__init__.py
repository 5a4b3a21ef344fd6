"""Every picture: the only home of matplotlib and networkx."""
