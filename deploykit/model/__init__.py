"""What the controller, the recipes and the agent share. It travels to hosts: the standard library only."""
