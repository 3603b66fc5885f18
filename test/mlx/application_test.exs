defmodule Mlx.ApplicationTest do
  # Starts the application again with other settings.
  use ExUnit.Case, async: false
  import ExUnit.CaptureLog

  @options [:device, :dispatch, :f64, :inspect, :memory_limit, :cache_limit, :queue_limit]

  setup do
    stats = Mlx.Memory.stats()
    queue = Mlx.Native.stream_queue_limit()
    device = Mlx.Device.default()

    on_exit(fn ->
      for key <- [:memory_limt | @options], do: Application.delete_env(:mlx, key)
      restart()
      Mlx.Memory.set_limit(stats.limit)
      Mlx.Memory.set_cache_limit(stats.cache_limit)
      Mlx.Native.stream_set_queue_limit(queue)
      Mlx.Device.set_default(device)
    end)
  end

  for {key, value, expected} <- [
        {:device, :tpu, "one of the devices there are, \\[:"},
        {:dispatch, :lazy, "one of \\[:pipelined, :sync\\]"},
        {:f64, true, "one of \\[:error, :downcast\\]"},
        {:inspect, 50, "one of \\[:eager, :lazy\\]"},
        {:memory_limit, 0, "a positive number of bytes"},
        {:memory_limit, "8 GB", "a positive number of bytes"},
        {:memory_limit, 2 ** 80, "a positive number of bytes"},
        {:cache_limit, -1, "a number of bytes that is not negative"},
        {:queue_limit, 0, "a positive number of operations"},
        {:queue_limit, 1.5, "a positive number of operations"}
      ] do
    test "refuses #{key}: #{inspect(value)}" do
      message = refusal(unquote(key), unquote(Macro.escape(value)))
      given = Regex.escape(inspect(unquote(Macro.escape(value))))

      assert message =~
               ~r/config :mlx, #{unquote(key)}: expected #{unquote(expected)}.*, got: #{given}/
    end
  end

  test "refuses an option that it doesn't know, and names those that it does" do
    message = refusal(:memory_limt, 1)
    assert message =~ "config :mlx, memory_limt: there is no such option"
    for option <- @options, do: assert(message =~ inspect(option))
  end

  test "leaves alone what other tools have for themselves" do
    Application.put_env(:mlx, Mlx.Unknown, skip: true)
    restart()
    Application.delete_env(:mlx, Mlx.Unknown)
  end

  test "starts with each option" do
    start_with(
      device: :cpu,
      dispatch: :sync,
      f64: :downcast,
      inspect: :lazy,
      memory_limit: 3 * 1024 ** 3,
      cache_limit: 5 * 1024 ** 2,
      queue_limit: 77
    )

    assert Mlx.Device.default() == :cpu
    assert Mlx.Config.get(:dispatch) == :sync
    assert Mlx.Config.get(:f64) == :downcast
    assert Mlx.Config.get(:inspect) == :lazy
    assert %{limit: 3_221_225_472, cache_limit: 5_242_880} = Mlx.Memory.stats()
    assert Mlx.Native.stream_queue_limit() == 77
  end

  test "what is not set any more is as it was by default" do
    start_with(dispatch: :sync, f64: :downcast, inspect: :lazy)
    Enum.each([:dispatch, :f64, :inspect], &Application.delete_env(:mlx, &1))
    restart()
    assert Mlx.Config.get(:dispatch) == :pipelined
    assert Mlx.Config.get(:f64) == :error
    assert Mlx.Config.get(:inspect) == :eager
  end

  test "dispatch: :sync has the engine compute each operation by itself, until it is not set" do
    on_exit(fn -> :erlang.trace_pattern({Mlx.Native, :stream_set_stepwise, 1}, false, []) end)
    :erlang.trace_pattern({Mlx.Native, :stream_set_stepwise, 1}, true, [])
    :erlang.trace(:new_processes, true, [:call])
    start_with(dispatch: :sync)
    assert_receive {:trace, _, :call, {Mlx.Native, :stream_set_stepwise, [true]}}, 60_000
    Application.delete_env(:mlx, :dispatch)
    restart()
    assert_receive {:trace, _, :call, {Mlx.Native, :stream_set_stepwise, [false]}}, 60_000
  after
    :erlang.trace(:new_processes, false, [:call])
  end

  test "printing computes nothing with inspect: :lazy" do
    start_with(inspect: :lazy)
    x = Nx.add(Nx.iota({3}, backend: Mlx.Backend), 1)
    assert inspect(x) =~ "s32[3]"
    assert inspect(x) =~ "not computed"
    assert Nx.to_list(x) == [1, 2, 3]
    assert inspect(x) =~ "[1, 2, 3]"
  end

  test "a queue of one operation at a time" do
    start_with(queue_limit: 1)
    x = Nx.tensor(0, backend: Mlx.Backend)
    assert 1..2000 |> Enum.reduce(x, fn _, x -> Nx.add(x, 1) end) |> Nx.to_number() == 2000
  end

  test "tensors outlive its restart" do
    tensor = Nx.tensor([1, 2], backend: Mlx.Backend)
    restart()
    assert Nx.to_list(Nx.add(tensor, 1)) == [2, 3]
  end

  test "the options are those of the documentation" do
    {:docs_v1, _, _, _, %{"en" => doc}, _, _} = Code.fetch_docs(Mlx)
    rows = for [_, key] <- Regex.scan(~r/^\| `:(\w+)` \|/m, doc), do: String.to_atom(key)
    compiled = [:add_backend_on_inspect, :debug_bounds_check, :debug_detect_nan_inf]
    assert rows == @options ++ compiled
    message = refusal(:memory_limt, 1)
    for option <- rows, do: assert(message =~ inspect(option))
  end

  test "compiled functions are compiled anew after its restart" do
    handler = make_ref()
    :telemetry.attach(handler, [:mlx, :compile, :stop], &__MODULE__.report/4, self())
    on_exit(fn -> :telemetry.detach(handler) end)

    tensor = Nx.tensor([1, 2], backend: Mlx.Backend)
    double = Nx.Defn.jit(&__MODULE__.double/1, compiler: Mlx.Compiler)
    before = double.(tensor)
    assert_received :compiled
    double.(tensor)
    refute_received :compiled

    restart()
    assert Nx.to_list(double.(before)) == [4, 8]
    assert_received :compiled
  end

  test "streams and work in flight outlive its restart" do
    stream = Mlx.Stream.new()
    double = Nx.Defn.jit(&__MODULE__.double/1, compiler: Mlx.Compiler, stream: stream)
    one = Nx.tensor(1.0, backend: Mlx.Backend)
    flying = Enum.reduce(1..100, one, fn _, x -> double.(x) end)
    restart()
    assert Nx.to_number(flying) == 2.0 ** 100
    assert Nx.to_number(double.(one)) == 2.0
  end

  defp start_with(options) do
    for {key, value} <- options, do: Application.put_env(:mlx, key, value)
    restart()
  end

  defp restart do
    stop()
    :ok = Application.start(:mlx)
  end

  defp refusal(key, value) do
    Application.put_env(:mlx, key, value)
    stop()
    capture_log(fn -> send(self(), Application.start(:mlx)) end)
    assert_received {:error, {:bad_return, {_start, {:EXIT, {%ArgumentError{message: text}, _}}}}}
    text
  end

  def double(x), do: Nx.multiply(x, 2)

  def report(_event, _measurements, _metadata, test), do: send(test, :compiled)

  defp stop, do: capture_log(fn -> Application.stop(:mlx) end)
end
