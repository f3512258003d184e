package org.apache.iceberg.rest;

import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.DispatcherType;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpServletResponseWrapper;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.CatalogUtil;
import org.apache.iceberg.catalog.Catalog;
import org.eclipse.jetty.ee10.servlet.FilterHolder;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletContextRequest;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;

/**
 * Iceberg's REST test server on 127.0.0.1, with faults that a test asks for.
 *
 * <pre>
 * LocalRest PORT key=value...     catalog properties; token=T: a request without this bearer token is refused
 * POST /_fault?when=before|after&status=503&times=1
 *                                 the next commits fail so, before or after they are applied; status 0 cuts the connection
 * GET  /_log                      one request a line since the last look: METHOD PATH?QUERY STATUS Idempotency-Key
 * </pre>
 */
public final class LocalRest implements Filter {
  private static final String COMMIT = ".*/tables/[^/]+";

  private final String token;
  private final List<String> log = Collections.synchronizedList(new ArrayList<>());
  private boolean before;
  private int status;
  private int times;

  private LocalRest(String token) {
    this.token = token;
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, String> properties = new HashMap<>();
    for (int i = 1; i < arguments.length; i++) {
      String[] pair = arguments[i].split("=", 2);
      properties.put(pair[0], pair[1]);
    }
    String token = properties.remove("token");
    properties.putIfAbsent("catalog-impl", "org.apache.iceberg.jdbc.JdbcCatalog");
    properties.putIfAbsent("jdbc.schema-version", "V1");
    // Tables only in namespaces that exist, as other servers have it.
    properties.putIfAbsent("jdbc.strict-mode", "true");
    Catalog catalog = CatalogUtil.buildIcebergCatalog("rest_backend", properties, new Configuration());
    RESTServerCatalogAdapter adapter =
        new RESTServerCatalogAdapter(new RESTCatalogServer.CatalogContext(catalog, properties));
    ServletContextHandler context = new ServletContextHandler(ServletContextHandler.NO_SESSIONS);
    context.addServlet(new ServletHolder(new RESTCatalogServlet(adapter)), "/*");
    context.addFilter(new FilterHolder(new LocalRest(token)), "/*", EnumSet.of(DispatcherType.REQUEST));
    Server server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])));
    server.setHandler(context);
    server.start();
    server.join();
  }

  @Override
  public void doFilter(ServletRequest plainRequest, ServletResponse plainResponse, FilterChain chain)
      throws IOException, ServletException {
    HttpServletRequest request = (HttpServletRequest) plainRequest;
    HttpServletResponse response = (HttpServletResponse) plainResponse;
    String path = request.getRequestURI();
    if (path.equals("/_fault")) {
      arm(request);
      response.setStatus(204);
    } else if (path.equals("/_log")) {
      response.setContentType("text/plain");
      synchronized (log) {
        response.getWriter().write(String.join("\n", log));
        log.clear();
      }
    } else if (token != null && !("Bearer " + token).equals(request.getHeader("Authorization"))) {
      // Echoes what it was given, as a careless server might: no client may print it.
      refuse(response, 401, "NotAuthorizedException", "bad credentials: " + request.getHeader("Authorization"));
    } else if (request.getMethod().equals("POST") && path.matches(COMMIT) && take()) {
      if (!before) {
        // The answer goes nowhere.
        chain.doFilter(request, new HttpServletResponseWrapper(response) {
          @Override
          public PrintWriter getWriter() {
            return new PrintWriter(new StringWriter());
          }
        });
        response.reset();
      }
      if (status == 0) {
        ServletContextRequest.getServletContextRequest(request).getConnectionMetaData().getConnection().close();
      } else {
        refuse(response, status, "ServiceFailureException", "asked for by the test");
      }
    } else {
      chain.doFilter(request, response);
    }
    String query = request.getQueryString() == null ? "" : "?" + request.getQueryString();
    log.add(request.getMethod() + " " + path + query + " " + response.getStatus() + " "
        + request.getHeader("Idempotency-Key"));
  }

  private synchronized void arm(HttpServletRequest request) {
    before = request.getParameter("when").equals("before");
    status = Integer.parseInt(request.getParameter("status"));
    String count = request.getParameter("times");
    times = count == null ? 1 : Integer.parseInt(count);
  }

  private synchronized boolean take() {
    return times > 0 && times-- > 0;
  }

  private static void refuse(HttpServletResponse response, int status, String type, String message)
      throws IOException {
    response.setStatus(status);
    response.setContentType("application/json");
    response.getWriter().write(
        "{\"error\":{\"message\":\"" + message + "\",\"type\":\"" + type + "\",\"code\":" + status + "}}");
  }
}
