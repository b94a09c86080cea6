-- Asked by each node every 200 ms.
return news(counter)
