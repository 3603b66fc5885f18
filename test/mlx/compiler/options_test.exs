defmodule Mlx.Compiler.OptionsTest do
  use ExUnit.Case, async: true
  alias Mlx.Compiler.Options

  test "have defaults" do
    device = Mlx.Device.default()
    assert %Options{device: ^device, stream: nil, fuse: false, cache: true} = Options.new!([])
    assert %{print: false, dispatch: :pipelined} = Options.new!([]).debug_options
    assert Options.new!(device: :cpu).device == :cpu
  end

  test "take the device of a stream" do
    stream = Mlx.Stream.new(:cpu)
    options = Options.new!(stream: stream)
    assert options.device == :cpu
    assert Options.new!(stream: stream, device: :cpu).device == :cpu
    assert_raise ArgumentError, ~r/is one of :cpu/, fn -> new!(stream: stream, device: :gpu) end
  end

  test "that are unknown are refused with those that are known" do
    error = catch_error(new!(fuze: true, cache: false))
    assert %ArgumentError{message: message} = error
    assert message =~ "unknown options of Mlx.Compiler: [:fuze]"
    for {option, _} <- Options.new!([]) |> Map.from_struct(), do: assert(message =~ ":#{option}")
  end

  for {option, value, message} <- [
        {:fuse, 1, ":fuse is one of [true, false], got: 1"},
        {:cache, nil, ":cache is one of [true, false], got: nil"},
        {:garbage_collect, "yes", ":garbage_collect is one of [true, false]"},
        {:fallback, :eager, ":fallback is one of [:raise, :evaluator], got: :eager"},
        {:stream, 1, ":stream is a Mlx.Stream, got: 1"},
        {:max_concurrency, 0, "max_concurrency is a positive number, got: 0"},
        {:max_concurrency, :all, "max_concurrency is a positive number, got: :all"},
        {:debug_options, [print: 1], ":print is one of [true, false], got: 1"},
        {:debug_options, [dispatch: :async], ":dispatch is one of [:pipelined, :sync]"},
        {:debug_options, :print, ":debug_options is a keyword list, got: :print"},
        {:hooks, %{loss: 1}, "the hook :loss is a function of one argument, got: 1"}
      ] do
    test "refuse #{inspect([{option, value}])}" do
      assert %ArgumentError{message: message} =
               catch_error(new!([{unquote(option), unquote(Macro.escape(value))}]))

      assert message =~ unquote(message)
    end
  end

  test "are checked by each of the compiler's functions" do
    for call <- [
          &Nx.Defn.jit_apply(fn x -> x end, [1], &1),
          &Nx.Defn.compile(fn x -> x end, [Nx.template({}, :s32)], &1),
          &Nx.Defn.to_backend/1
        ] do
      assert_raise ArgumentError, ~r/unknown options/, fn ->
        call.(compiler: Mlx.Compiler, fuze: true)
      end
    end

    assert_raise ArgumentError, ~r/unknown options/, fn ->
      Mlx.Compiler.program(fn x -> x end, [1], fuze: true)
    end
  end

  test "divide streams among partitions" do
    assert Mlx.Compiler.__partitions_options__(fuse: false) == [[fuse: false]]
    options = Mlx.Compiler.__partitions_options__(max_concurrency: 3)
    streams = for option <- options, do: option[:stream]
    assert [_, _, _] = Enum.uniq(streams)
    assert Enum.all?(streams, &is_struct(&1, Mlx.Stream))
  end

  # The compiler knows the type of a constant list.
  defp new!(options), do: Options.new!(Function.identity(options))
end
