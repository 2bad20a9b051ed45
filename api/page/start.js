// Renders the document. All addresses are relative, so that the page works behind a proxy that adds a prefix.
SwaggerUIBundle({
  url: "v1/openapi.yaml",
  dom_id: "#document",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: "none", // Swagger UI would load a badge from another server
});
