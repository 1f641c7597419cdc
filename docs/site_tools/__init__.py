"""Extensions of Sphinx that build the site."""
