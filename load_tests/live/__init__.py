"""Routing compared live: real vLLM replicas behind weir, SGLang's router and Ray Serve LLM."""
