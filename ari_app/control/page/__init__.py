"""The files of the page; `ari_app.control.http.page` serves them."""
