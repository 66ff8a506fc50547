"""HTTP: connections, access, bodies, responses, the OpenAPI document and the page."""
