defmodule Mlx.TestDevice do
  @moduledoc """
  The device that the tests run on.

  `MLX_TEST_DEVICE` names it: `cpu`, which is the default, `gpu`, or `cpu-without-f64`, the CPU as a
  device that lacks f64 as GPUs do. It is read when the tests run, and by the VMs that they start.
  """

  import ExUnit.Assertions
  alias Mlx.{Device, Downcast}

  @variable "MLX_TEST_DEVICE"
  @settings %{
    "cpu" => {:cpu, [:gpu]},
    "gpu" => {:gpu, [:gpu]},
    "cpu-without-f64" => {:cpu, [:gpu, :cpu]}
  }

  @doc """
  Makes it the default device of this VM, or raises if it isn't there.
  """
  def start do
    {device, lacking} = setting()

    if device not in Device.available() do
      raise "#{@variable}=#{device}, but there is no such device here; " <>
              "available: #{inspect(Device.available())}. See mix mlx.doctor"
    end

    # MLX reads it from the environment that the VM began with.
    if device == :gpu and nvidia?() and System.get_env("MLX_ENABLE_TF32") != "0" do
      raise "set MLX_ENABLE_TF32=0: the tests compare products with all bits of f32"
    end

    Downcast.set_lacking(lacking)
    Device.set_default(device)
  end

  @doc """
  The device.
  """
  def device, do: elem(setting(), 0)

  @doc """
  The devices that count as ones without f64.
  """
  def lacking, do: elem(setting(), 1)

  @doc """
  Whether the device has f64.
  """
  def f64?, do: device() not in lacking()

  @doc """
  Those of the types that the device has.
  """
  def types(types), do: Enum.filter(types, &type?/1)

  @doc """
  Whether the device has a type.
  """
  def type?(type), do: f64?() or type not in [:f64, {:f, 64}]

  @doc """
  How far floats may be apart on the device, in units of the last place, where they may be that far
  apart on the CPU. GPUs add in another order and have elementary functions of their own.
  """
  def ulps(ulps), do: if(device() == :gpu, do: 4 * max(ulps, 1), else: ulps)

  @doc """
  Whether documentation prints what this device does, to the letter.
  """
  def exact?, do: device() == :cpu and f64?()

  @doc """
  The tags of tests that are left out, each with the reason.
  """
  def left_out do
    without_f64 = [f64: "the device has no f64; that it is refused is tested"]
    with_cuda = [host_memory: "MLX for CUDA has memory that the system does not count"]
    without_cuda = [gpu: "there is no NVIDIA GPU"]
    if(f64?(), do: [], else: without_f64) ++ if nvidia?(), do: with_cuda, else: without_cuda
  end

  defp nvidia?, do: :gpu in Device.available() and :os.type() == {:unix, :linux}

  @doc """
  Asserts that a function is refused because the device lacks f64.
  """
  def assert_f64_refused(fun) do
    error = assert_raise Mlx.Error, fun
    assert %{kind: :type, message: "GPUs have no f64: " <> _} = error
  end

  defp setting do
    name = System.get_env(@variable, "cpu")

    Map.get(@settings, name) ||
      raise "#{@variable} is one of #{Enum.join(Map.keys(@settings), ", ")}; it is #{inspect(name)}"
  end
end
