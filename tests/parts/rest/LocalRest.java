package org.apache.iceberg.rest;

import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.DispatcherType;
import jakarta.servlet.ReadListener;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletInputStream;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletRequestWrapper;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpServletResponseWrapper;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.time.Clock;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.CatalogUtil;
import org.apache.iceberg.catalog.Catalog;
import org.eclipse.jetty.ee10.servlet.FilterHolder;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletContextRequest;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import software.amazon.awssdk.http.ContentStreamProvider;
import software.amazon.awssdk.http.SdkHttpMethod;
import software.amazon.awssdk.http.SdkHttpRequest;
import software.amazon.awssdk.http.auth.aws.signer.AwsV4HttpSigner;
import software.amazon.awssdk.http.auth.spi.signer.HttpSigner;
import software.amazon.awssdk.identity.spi.AwsCredentialsIdentity;
import software.amazon.awssdk.identity.spi.AwsSessionCredentialsIdentity;

/**
 * Iceberg's REST test server on 127.0.0.1, with faults that a test asks for.
 *
 * <pre>
 * LocalRest PORT key=value...     catalog properties, and
 *     token=T                     a request without this bearer token is refused
 *     auth=ID:SECRET ttl=SECONDS  one without a token of /v1/oauth/tokens (client credentials) is refused; POST /_revoke ends
 *                                 all tokens there are
 *     sigv4=ID:SECRET[:SESSION] region=R service=S
 *                                 one that AWS's own SDK would not have signed the same is refused
 * POST /_fault?when=before|after&status=503&times=1
 *                                 the next commits fail so, before or after they are applied; status 0 cuts the connection
 * GET  /_log                      one request a line since the last look: METHOD PATH?QUERY STATUS Idempotency-Key
 * </pre>
 */
public final class LocalRest implements Filter {
  private static final String COMMIT = ".*/tables/[^/]+";

  private final String token;
  private final String auth;
  private final long ttlSeconds;
  private final String[] keys;
  private final String region;
  private final String service;
  private final Map<String, Long> granted = new ConcurrentHashMap<>();
  private final List<String> log = Collections.synchronizedList(new ArrayList<>());
  private boolean before;
  private int status;
  private int times;

  private LocalRest(Map<String, String> properties) {
    token = properties.remove("token");
    auth = properties.remove("auth");
    String ttl = properties.remove("ttl");
    ttlSeconds = ttl == null ? 3600 : Long.parseLong(ttl);
    String sigv4 = properties.remove("sigv4");
    keys = sigv4 == null ? null : sigv4.split(":", 3);
    region = properties.remove("region");
    service = properties.remove("service");
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, String> properties = new HashMap<>();
    for (int i = 1; i < arguments.length; i++) {
      String[] pair = arguments[i].split("=", 2);
      properties.put(pair[0], pair[1]);
    }
    LocalRest filter = new LocalRest(properties);
    properties.putIfAbsent("catalog-impl", "org.apache.iceberg.jdbc.JdbcCatalog");
    properties.putIfAbsent("jdbc.schema-version", "V1");
    // Tables only in namespaces that exist, as other servers have it.
    properties.putIfAbsent("jdbc.strict-mode", "true");
    Catalog catalog = CatalogUtil.buildIcebergCatalog("rest_backend", properties, new Configuration());
    RESTServerCatalogAdapter adapter =
        new RESTServerCatalogAdapter(new RESTCatalogServer.CatalogContext(catalog, properties));
    ServletContextHandler context = new ServletContextHandler(ServletContextHandler.NO_SESSIONS);
    context.addServlet(new ServletHolder(new RESTCatalogServlet(adapter)), "/*");
    context.addFilter(new FilterHolder(filter), "/*", EnumSet.of(DispatcherType.REQUEST));
    Server server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])));
    server.setHandler(context);
    server.start();
    server.join();
  }

  @Override
  public void doFilter(ServletRequest plainRequest, ServletResponse plainResponse, FilterChain chain)
      throws IOException, ServletException {
    HttpServletRequest request = keys == null ? (HttpServletRequest) plainRequest : new Kept(plainRequest);
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
    } else if (path.equals("/_revoke")) {
      granted.clear();
      response.setStatus(204);
    } else if (auth != null && path.equals("/v1/oauth/tokens")) {
      grant(request, response);
    } else if (auth != null && !isGood(request.getHeader("Authorization"))) {
      refuse(response, 401, "NotAuthorizedException", "bad credentials: " + request.getHeader("Authorization"));
    } else if (keys != null && !isSigned((Kept) request)) {
      refuse(response, 403, "ForbiddenException", "bad signature: " + request.getHeader("Authorization"));
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

  private boolean isGood(String header) {
    Long end = header == null || !header.startsWith("Bearer ") ? null : granted.get(header.substring(7));
    return end != null && System.currentTimeMillis() < end;
  }

  /** RFC 6749, 4.4. Echoes what it was given, as a careless server might. */
  private void grant(HttpServletRequest request, HttpServletResponse response) throws IOException {
    String body = new String(request.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    Map<String, String> form = new HashMap<>();
    for (String field : body.split("&")) {
      String[] pair = field.split("=", 2);
      form.put(pair[0], pair.length < 2 ? "" : URLDecoder.decode(pair[1], StandardCharsets.UTF_8));
    }
    response.setContentType("application/json");
    boolean known = auth.equals(form.get("client_id") + ":" + form.get("client_secret"));
    if (!known || !"client_credentials".equals(form.get("grant_type")) || !"catalog".equals(form.get("scope"))) {
      String error = !known ? "invalid_client" : form.get("scope") == null ? "invalid_request" : "invalid_scope";
      response.setStatus(known ? 400 : 401);
      response.getWriter().write(
          "{\"error\":\"" + error + "\",\"error_description\":\"not from here: " + body + "\"}");
      return;
    }
    String fresh = UUID.randomUUID().toString();
    granted.put(fresh, System.currentTimeMillis() + ttlSeconds * 1000);
    response.getWriter().write("{\"access_token\":\"" + fresh + "\",\"token_type\":\"bearer\",\"expires_in\":" + ttlSeconds
        + ",\"issued_token_type\":\"urn:ietf:params:oauth:token-type:access_token\"}");
  }

  /** Whether AWS's SDK comes to the same signature for what arrived, over the headers that are said to be signed. */
  private boolean isSigned(Kept request) {
    String given = request.getHeader("Authorization");
    String date = request.getHeader("X-Amz-Date");
    if (given == null || date == null || !given.contains("SignedHeaders=")) {
      return false;
    }
    String query = request.getQueryString() == null ? "" : "?" + request.getQueryString();
    SdkHttpRequest.Builder unsigned = SdkHttpRequest.builder()
        .method(SdkHttpMethod.fromValue(request.getMethod()))
        .uri(URI.create("http://" + request.getHeader("Host") + request.getRequestURI() + query));
    for (String name : given.split("SignedHeaders=")[1].split(",")[0].split(";")) {
      // The SDK adds these itself.
      if (!List.of("x-amz-date", "x-amz-content-sha256", "x-amz-security-token").contains(name)) {
        unsigned.putHeader(name, request.getHeader(name));
      }
    }
    AwsCredentialsIdentity identity = keys.length == 3
        ? AwsSessionCredentialsIdentity.create(keys[0], keys[1], keys[2])
        : AwsCredentialsIdentity.create(keys[0], keys[1]);
    Instant then = Instant.from(
        DateTimeFormatter.ofPattern("yyyyMMdd'T'HHmmss'Z'").withZone(ZoneOffset.UTC).parse(date));
    SdkHttpRequest signed = AwsV4HttpSigner.create().sign(sign -> sign
        .identity(identity)
        .request(unsigned.build())
        .payload(ContentStreamProvider.fromByteArray(request.body))
        .putProperty(AwsV4HttpSigner.SERVICE_SIGNING_NAME, service)
        .putProperty(AwsV4HttpSigner.REGION_NAME, region)
        .putProperty(HttpSigner.SIGNING_CLOCK, Clock.fixed(then, ZoneOffset.UTC))).request();
    return given.replace(" ", "").equals(signed.firstMatchingHeader("Authorization").orElse("").replace(" ", ""))
        && signed.firstMatchingHeader("x-amz-content-sha256").equals(
            Optional.ofNullable(request.getHeader("x-amz-content-sha256")));
  }

  /** A request whose body can be read twice. */
  private static final class Kept extends HttpServletRequestWrapper {
    private final byte[] body;

    Kept(ServletRequest request) throws IOException {
      super((HttpServletRequest) request);
      body = request.getInputStream().readAllBytes();
    }

    @Override
    public ServletInputStream getInputStream() {
      ByteArrayInputStream bytes = new ByteArrayInputStream(body);
      return new ServletInputStream() {
        @Override
        public boolean isFinished() {
          return bytes.available() == 0;
        }

        @Override
        public boolean isReady() {
          return true;
        }

        @Override
        public void setReadListener(ReadListener listener) {
          throw new UnsupportedOperationException();
        }

        @Override
        public int read() {
          return bytes.read();
        }
      };
    }

    @Override
    public BufferedReader getReader() {
      return new BufferedReader(new InputStreamReader(getInputStream(), StandardCharsets.UTF_8));
    }
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
