"""What runs inside a bundle, in its directory `deploytk_app/`: plain Python from 3.8 on that needs no deploytk."""
