defmodule Mlx.StreamTest do
  use ExUnit.Case, async: true

  doctest Mlx.Stream

  test "a stream has a device" do
    assert %Mlx.Stream{device: :cpu} = Mlx.Stream.new(:cpu)
    assert Mlx.Stream.new().device == Mlx.Device.default()
    assert_raise Mlx.Error, ~r/there is no device :tpu/, fn -> Mlx.Stream.new(:tpu) end
  end

  test "streams that are let go of leave their threads to the next ones" do
    fun = Nx.Defn.jit(&Nx.add(&1, 1), compiler: Mlx.Compiler, stream: Mlx.Stream.new(:cpu))
    threads = fn -> length(File.ls!("/proc/self/task")) end

    run = fn ->
      Nx.Defn.jit_apply(&Nx.add(&1, 1), [1], compiler: Mlx.Compiler, stream: Mlx.Stream.new(:cpu))
    end

    for _ <- 1..20, do: Nx.to_number(run.())
    :erlang.garbage_collect()
    before = threads.()

    for _ <- 1..200 do
      Nx.to_number(run.())
      :erlang.garbage_collect()
    end

    assert threads.() - before < 100
    assert Nx.to_number(fun.(1)) == 2
  end
end
