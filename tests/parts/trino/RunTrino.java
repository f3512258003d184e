/** Trino's server without its launcher. */
public final class RunTrino {
  public static void main(String[] arguments) {
    new io.trino.server.Server().start(arguments[0]);
  }
}
